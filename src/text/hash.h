#pragma once
#include <cstdint>
#include <cstring>
#include <string_view>

namespace awq {

/// Eight bytes at a time, multiplied and folded: tokens are short, and std::hash is a call. Inverting it is easy, so
/// tables of it must not be scanned far where a text, rather than a model's file, says what they hold.
inline uint64_t hash_of(std::string_view s) {
  const auto mix = [](uint64_t a) {
    a *= 0x9E3779B97F4A7C15u;
    return a ^ (a >> 32);
  };
  uint64_t h = s.size();
  while (s.size() >= 8) {
    uint64_t word = 0;
    std::memcpy(&word, s.data(), 8);
    h = mix(h ^ word);
    s.remove_prefix(8);
  }
  uint64_t word = 0;
  for (const char c : s) word = (word << 8) | static_cast<unsigned char>(c);
  return mix(mix(h ^ word));
}

}  // namespace awq
