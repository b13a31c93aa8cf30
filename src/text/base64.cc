#include "text/base64.h"

#include <cstdint>

namespace awq {

std::optional<std::string> decode_base64(std::string_view text) {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (text.size() % 4 != 0) return std::nullopt;
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  std::string out;
  out.reserve(text.size() / 4 * 3);
  uint32_t bits = 0;
  int held = 0;
  for (const char c : text.substr(0, text.size() - padding)) {
    const size_t digit = digits.find(c);
    if (digit == digits.npos) return std::nullopt;
    bits = (bits << 6) | uint32_t(digit);
    if ((held += 6) < 8) continue;
    held -= 8;
    out.push_back(static_cast<char>(bits >> held));
    bits &= (1u << held) - 1;
  }
  return bits == 0 ? std::optional(out) : std::nullopt;  // the bits that padding stands for
}

}  // namespace awq
