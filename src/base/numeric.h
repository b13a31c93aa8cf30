#pragma once
#include <bit>
#include <cmath>
#include <cstdint>

#include "base/check.h"

namespace awq {

/// Product of two sizes that come from a file. Throws Error on overflow or a negative factor.
inline int64_t checked_mul(int64_t a, int64_t b) {
  int64_t r = 0;
  if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &r)) fail("size", "{} x {} is no valid size", a, b);
  return r;
}

inline float bf16_to_f32(uint16_t v) { return std::bit_cast<float>(uint32_t(v) << 16); }

/// Round to nearest even; not for NaN. Compilers vectorise it.
inline uint16_t number_to_bf16(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  return uint16_t((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

/// The same; NaN stays NaN.
inline uint16_t f32_to_bf16(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  return (u & 0x7fffffff) > 0x7f800000 ? uint16_t((u >> 16) | 0x40) : number_to_bf16(f);
}

inline float f16_to_f32(uint16_t h) {
  // Moving exponent and mantissa into place and multiplying by 2^112 is exact for every finite half, subnormals too.
  const uint32_t sign = uint32_t(h & 0x8000) << 16;
  const uint32_t rest = uint32_t(h & 0x7fff) << 13;
  const uint32_t magnitude =
      (h & 0x7c00) == 0x7c00 ? rest | 0x7f800000 : std::bit_cast<uint32_t>(std::bit_cast<float>(rest) * 0x1p112f);
  return std::bit_cast<float>(magnitude | sign);
}

/// e4m3, round to nearest even, of |f| <= 464: what it has beyond is NaN.
inline uint8_t f32_to_e4m3(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f), a = u & 0x7fffffff;
  const auto sign = uint8_t(u >> 24 & 0x80);
  if (a < 0x3c800000)  // below 2^-6: the sum's ulp is 2^-9, so its low bits are the code
    return uint8_t(sign | (std::bit_cast<uint32_t>(std::bit_cast<float>(a) + 0x1p14f) & 0xff));
  return uint8_t(sign | (a - 0x3c000000 + 0x7ffff + (a >> 20 & 1)) >> 20);
}

/// Round to nearest even; overflow gives infinity, NaN stays NaN.
inline uint16_t f32_to_f16(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  const auto sign = uint16_t((u >> 16) & 0x8000);
  const uint32_t a = u & 0x7fffffff;
  if (a > 0x7f800000) return sign | 0x7e00;
  if (a >= 0x477ff000) return sign | 0x7c00;  // 65520 and above round to infinity
  if (a < 0x38800000) {                       // below 2^-14: the sum's ulp is 2^-24, so its low bits are the half
    const float shifted = std::bit_cast<float>(a) + 0.5f;
    return uint16_t(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000));
  }
  return uint16_t(sign | ((a - 0x38000000 + 0xfff + ((a >> 13) & 1)) >> 13));
}

}  // namespace awq
