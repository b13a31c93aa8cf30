#include "text/vocabulary.h"

#include <algorithm>
#include <bit>

#include "base/check.h"
#include "text/hash.h"

namespace awq {
namespace {

constexpr size_t kPlanned = 1 << 18;  // entries: more is taken as they come

uint32_t short_hash(std::string_view text) { return static_cast<uint32_t>(hash_of(text) >> 16); }

}  // namespace

Vocabulary::Vocabulary(size_t entries)
    : slots_(std::max<size_t>(256, std::bit_ceil(2 * std::min(entries, kPlanned))), Slot{0, -1}),
      largest_(std::min<size_t>(limit - 1, 65536 + 16 * entries)) {
  texts_.reserve(std::min(entries, kPlanned));
}

/// The slot that holds the text, or the free one where it would go.
size_t Vocabulary::slot_of(std::string_view text, uint32_t hash) const {
  const size_t mask = slots_.size() - 1;
  size_t at = hash & mask;
  while (slots_[at].id >= 0 && (slots_[at].hash != hash || texts_[size_t(slots_[at].id)] != text)) at = (at + 1) & mask;
  return at;
}

void Vocabulary::grow() {
  std::vector<Slot> old(2 * slots_.size(), Slot{0, -1});
  old.swap(slots_);
  for (const Slot& s : old)
    if (s.id >= 0) slots_[slot_of(texts_[size_t(s.id)], s.hash)] = s;
}

void Vocabulary::add(std::string_view text, int64_t id) {
  if (id < 0 || static_cast<uint64_t>(id) > largest_)
    fail("tokenizer", "token \"{}\" has the id {}; in a vocabulary of this size ids go from 0 to {}", text, id,
         largest_);
  if (2 * (count_ + 1) > slots_.size()) grow();
  const auto at = static_cast<size_t>(id);
  if (at >= texts_.size()) {
    texts_.resize(at + 1);
    used_.resize(at + 1);
  }
  if (used_[at])
    fail("tokenizer", "tokens \"{}\" and \"{}\" share the id {}; is the file damaged?", texts_[at], text, id);
  const uint32_t hash = short_hash(text);
  Slot& slot = slots_[slot_of(text, hash)];
  if (slot.id >= 0) fail("tokenizer", "token \"{}\" has the ids {} and {}; is the file damaged?", text, slot.id, id);
  slot = {hash, static_cast<int32_t>(id)};
  texts_[at] = text;
  used_[at] = true;
  ++count_;
}

std::optional<int32_t> Vocabulary::id_of(std::string_view text) const {
  const int32_t id = slots_[slot_of(text, short_hash(text))].id;
  return id < 0 ? std::nullopt : std::optional(id);
}

const std::string* Vocabulary::text_of(int32_t id) const {
  return id >= 0 && id < size() && used_[size_t(id)] ? &texts_[size_t(id)] : nullptr;
}

}  // namespace awq
