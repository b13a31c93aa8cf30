#pragma once
#pragma GCC system_header
// Takes the place of <immintrin.h> for the test-only build of avx512.cc: AVX-512 in terms of AVX2, from SIMDe, so that
// machines without AVX-512 check its arithmetic too. fma must be fused, so the machine's own AVX2 and FMA are used.
#include_next <immintrin.h>

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

// What SIMDe 0.7.4 lacks, after Intel's description of the instruction: widening conversions of 16 elements.
namespace {

template <class To, class From, class Convert>
inline To convert16(From from, Convert convert) {
  decltype(convert(0)) out[16];
  unsigned char in[sizeof(From)];
  __builtin_memcpy(in, &from, sizeof(from));
  for (int i = 0; i < 16; ++i) {
    uint32_t v = 0;
    __builtin_memcpy(&v, in + sizeof(From) / 16 * size_t(i), sizeof(From) / 16);
    out[i] = convert(v);
  }
  To to;
  __builtin_memcpy(&to, out, sizeof(to));
  return to;
}

inline simde__m512i emulated_cvtepu8_epi32(__m128i a) {
  return convert16<simde__m512i>(a, [](uint32_t v) { return v; });
}
inline simde__m512i emulated_cvtepi8_epi32(__m128i a) {
  return convert16<simde__m512i>(a, [](uint32_t v) { return int32_t(int8_t(v)); });
}
inline simde__m512i emulated_cvtepu16_epi32(__m256i a) {
  return convert16<simde__m512i>(a, [](uint32_t v) { return v; });
}
inline simde__m512 emulated_cvtepi32_ps(simde__m512i a) {
  return convert16<simde__m512>(a, [](uint32_t v) { return float(int32_t(v)); });
}
inline simde__m512 emulated_cvtph_ps(__m256i a) {
  return convert16<simde__m512>(a, [](uint32_t v) { return _cvtsh_ss(uint16_t(v)); });
}

}  // namespace

#define _mm512_cvtepu8_epi32 emulated_cvtepu8_epi32
#define _mm512_cvtepi8_epi32 emulated_cvtepi8_epi32
#define _mm512_cvtepu16_epi32 emulated_cvtepu16_epi32
#define _mm512_cvtepi32_ps emulated_cvtepi32_ps
#define _mm512_cvtph_ps emulated_cvtph_ps
