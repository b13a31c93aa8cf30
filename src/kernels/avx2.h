#pragma once
// AVX2, FMA, F16C: 8 floats or int32 to a vector, two to a panel, 16 registers.
#include <immintrin.h>

#include "kernels/vector_set.h"

namespace awq::kernels {
namespace {

struct Avx2 {
  using F = __m256;
  using I = __m256i;
  static constexpr int kVecs = 2;
  static constexpr int kAcc = 12;  // of 16 registers: 2 hold weights, 1 an activation
  static constexpr int kTokens = 6;
  static constexpr int kFew = 24;
  static constexpr int kIntTokens = 6;
  static constexpr int kIntPanels = 1;
  static constexpr int kIntBlockBytes = 512;
  static constexpr int kChains = 1;  // the sum's latency is 1 cycle
  static constexpr int kIntFew = 16;
  static constexpr int kFewSums = 8;
  static constexpr int kFewTokens = 4;
  static constexpr ByteDot kByteDot = ByteDot::kUnsigned;

  static F zero_f() { return _mm256_setzero_ps(); }
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static F load(const Bf16* p) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_16(p)), 16)); }
  static F load(const F16* p) { return _mm256_cvtph_ps(load_16(p)); }
  static F load(const int8_t* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
  static F load(const F8* p) {
    const I wide = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    return _mm256_mul_ps(
        _mm256_castsi256_ps(_mm256_and_si256(_mm256_slli_epi32(wide, 20), _mm256_set1_epi32(int(0x87f00000)))),
        _mm256_set1_ps(0x1p120f));
  }
  static F even(const Bf16* p) { return _mm256_castsi256_ps(_mm256_slli_epi32(load_32(p), 16)); }
  static F odd(const Bf16* p) {
    return _mm256_castsi256_ps(_mm256_and_si256(load_32(p), _mm256_set1_epi32(int(0xffff0000))));
  }
  static void store(float* p, F v) { _mm256_storeu_ps(p, v); }
  static F set1(float v) { return _mm256_set1_ps(v); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }

  static I zero_i() { return _mm256_setzero_si256(); }
  static I load_words(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const I*>(p)); }
  static I load_bytes(const uint8_t* p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  }
  static I load(const int32_t* p) { return _mm256_load_si256(reinterpret_cast<const I*>(p)); }
  static void store(int32_t* p, I v) { _mm256_store_si256(reinterpret_cast<I*>(p), v); }
  static I set1(int32_t v) { return _mm256_set1_epi32(v); }
  static I and_i(I a, I b) { return _mm256_and_si256(a, b); }
  static I or_i(I a, I b) { return _mm256_or_si256(a, b); }
  template <int N>
  static I shr16(I a) {
    return _mm256_srli_epi16(a, N);
  }
  template <int N>
  static I shl(I a) {
    return _mm256_slli_epi32(a, N);
  }
  static I add_i(I a, I b) { return _mm256_add_epi32(a, b); }
  static I sub_i(I a, I b) { return _mm256_sub_epi32(a, b); }
  static I sub16(I a, I b) { return _mm256_sub_epi16(a, b); }
  static I sub8(I a, I b) { return _mm256_sub_epi8(a, b); }
  static I dot16(I sum, I a, I b) {
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
    __asm__("" : "+x"(sum));
    return sum;
  }
  static I dot8(I sum, I a, I b) {  // pairs stay within 2 * 255 * 15
    return dot16(sum, _mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1));
  }
  static F to_float(I a) { return _mm256_cvtepi32_ps(a); }

 private:
  static __m256i load_32(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  static __m128i load_16(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
};

}  // namespace
}  // namespace awq::kernels
