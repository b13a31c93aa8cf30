#include "text/characters_map.h"

#include <cstring>

#include "base/check.h"

namespace awq {
namespace {

uint32_t little_endian(const char* bytes) {
  uint32_t value = 0;
  for (int i = 3; i >= 0; --i) value = (value << 8) | static_cast<unsigned char>(bytes[i]);
  return value;
}

// A unit of the trie: the byte that leads to it, where its children are, and whether a value is among them.
uint32_t label(uint32_t unit) { return unit & 0x800000FFu; }
uint32_t offset(uint32_t unit) { return (unit >> 10) << ((unit & 0x200u) >> 6); }
bool has_value(uint32_t unit) { return (unit & 0x100u) != 0; }
uint32_t value(uint32_t unit) { return unit & 0x7FFFFFFFu; }

}  // namespace

CharactersMap::CharactersMap(std::string_view bytes) {
  const size_t size = bytes.size() < 4 ? 0 : little_endian(bytes.data());
  if (bytes.size() < 4 || size > bytes.size() - 4 || size % 4 != 0 || size == 0)
    fail("tokenizer", "the precompiled normalization is damaged: a trie of {} bytes in {}", size, bytes.size());
  for (size_t at = 4; at < size + 4; at += 4) units_.push_back(little_endian(bytes.data() + at));
  replacements_ = bytes.substr(size + 4);
  if (!replacements_.ends_with('\0')) replacements_.push_back('\0');
}

std::optional<CharactersMap::Match> CharactersMap::find(std::string_view text, bool first) const {
  std::optional<Match> best;
  size_t at = offset(units_[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    at ^= byte;
    if (at >= units_.size() || label(units_[at]) != byte) break;
    const uint32_t unit = units_[at];
    at ^= offset(unit);
    if (!has_value(unit)) continue;
    if (at >= units_.size() || value(units_[at]) >= replacements_.size()) break;
    best = {i + 1, replacements_.c_str() + value(units_[at])};
    if (first) break;
  }
  return best;
}

}  // namespace awq
