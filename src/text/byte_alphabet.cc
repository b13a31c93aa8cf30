#include "text/byte_alphabet.h"

#include <array>

#include "text/utf8.h"

namespace awq {
namespace {

constexpr bool keeps_its_code_point(int b) {
  return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
}
constexpr int kMoved = 68;  // bytes that do not

constexpr std::array<uint16_t, 256> make_alphabet() {
  std::array<uint16_t, 256> table{};
  uint16_t next = 0x100;
  for (int b = 0; b < 256; ++b) table[size_t(b)] = keeps_its_code_point(b) ? static_cast<uint16_t>(b) : next++;
  return table;
}
constexpr std::array<uint16_t, 256> kAlphabet = make_alphabet();

constexpr std::array<unsigned char, kMoved> make_moved() {
  std::array<unsigned char, kMoved> table{};
  for (int b = 0; b < 256; ++b)
    if (kAlphabet[size_t(b)] >= 0x100) table[kAlphabet[size_t(b)] - 0x100u] = static_cast<unsigned char>(b);
  return table;
}
constexpr std::array<unsigned char, kMoved> kMovedBytes = make_moved();

}  // namespace

char32_t character_of_byte(unsigned char byte) { return kAlphabet[byte]; }

std::optional<unsigned char> byte_of_character(char32_t c) {
  if (c >= 0x100 && c < 0x100 + kMoved) return kMovedBytes[c - 0x100];
  if (c < 0x100 && keeps_its_code_point(static_cast<int>(c))) return static_cast<unsigned char>(c);
  return std::nullopt;
}

void append_as_characters(std::string& out, std::string_view bytes) {
  for (const char b : bytes) utf8::append(out, character_of_byte(static_cast<unsigned char>(b)));
}

}  // namespace awq
