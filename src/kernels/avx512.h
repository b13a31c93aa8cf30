#pragma once
// AVX-512 with VNNI: a panel's 16 floats or int32 to a vector, 32 registers.
#include <immintrin.h>

#include "kernels/vector_set.h"

namespace awq::kernels {
namespace {

struct Avx512 {
  using F = __m512;
  using I = __m512i;
  static constexpr int kVecs = 1;
  static constexpr int kAcc = 24;
  static constexpr int kTokens = 8;
  static constexpr int kFew = 24;
  static constexpr int kIntTokens = 12;
  static constexpr int kIntPanels = 2;
  static constexpr int kIntBlockBytes = 1024;
  static constexpr int kChains = 4;  // vpdpwssd: latency 4 or 5, two a cycle
  static constexpr int kIntFew = 8;
  static constexpr int kFewSums = 16;
  static constexpr int kFewTokens = 8;
  static constexpr ByteDot kByteDot = ByteDot::kUnsigned;

  static F zero_f() { return _mm512_setzero_ps(); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static F load(const Bf16* p) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_16(p)), 16)); }
  static F load(const F16* p) { return _mm512_cvtph_ps(load_16(p)); }
  static F load(const int8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  static F load(const F8* p) {
    const I wide = _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm512_mul_ps(
        _mm512_castsi512_ps(_mm512_and_si512(_mm512_slli_epi32(wide, 20), _mm512_set1_epi32(int(0x87f00000)))),
        _mm512_set1_ps(0x1p120f));
  }
  static F even(const Bf16* p) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16)); }
  static F odd(const Bf16* p) {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32(int(0xffff0000))));
  }
  static void store(float* p, F v) { _mm512_storeu_ps(p, v); }
  static F set1(float v) { return _mm512_set1_ps(v); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }

  static I zero_i() { return _mm512_setzero_si512(); }
  static I load_words(const uint8_t* p) { return _mm512_loadu_si512(reinterpret_cast<const I*>(p)); }
  static I load_bytes(const uint8_t* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static I load(const int32_t* p) { return _mm512_load_si512(reinterpret_cast<const I*>(p)); }
  static void store(int32_t* p, I v) { _mm512_store_si512(reinterpret_cast<I*>(p), v); }
  static I set1(int32_t v) { return _mm512_set1_epi32(v); }
  static I and_i(I a, I b) { return _mm512_and_si512(a, b); }
  static I or_i(I a, I b) { return _mm512_or_si512(a, b); }
  template <int N>
  static I shr16(I a) {
    return _mm512_srli_epi16(a, N);
  }
  template <int N>
  static I shl(I a) {
    return _mm512_slli_epi32(a, N);
  }
  static I add_i(I a, I b) { return _mm512_add_epi32(a, b); }
  static I sub_i(I a, I b) { return _mm512_sub_epi32(a, b); }
  static I sub16(I a, I b) { return _mm512_sub_epi16(a, b); }
  static I sub8(I a, I b) { return _mm512_sub_epi8(a, b); }
#ifdef AWQ_EMULATED
  static I dot16(I sum, I a, I b) { return _mm512_dpwssd_epi32(sum, a, b); }
  static I dot8(I sum, I a, I b) { return _mm512_dpbusd_epi32(sum, a, b); }
#else
  // As text: GCC 12 copies the sum before and after the intrinsic.
  static I dot16(I sum, I a, I b) {
    __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
  }
  static I dot8(I sum, I a, I b) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
  }
#endif
  static F to_float(I a) { return _mm512_cvtepi32_ps(a); }

 private:
  static __m256i load_16(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
};

}  // namespace
}  // namespace awq::kernels
