#pragma once
// What all uses of the tile registers share. A product multiplies two tiles of activations, kTileRows rows each, by two
// panels: four tiles of sums. A tile has rows of 64 bytes.
#include "kernels/avx512.h"

namespace awq::kernels {
namespace {

enum : int32_t { kTileRows = 16, kRowBytes = 64, kTileBytes = kTileRows * kRowBytes };

struct TileConfig {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};

/// Tiles 0-3 hold sums, 4 and 5 activations of `tokens` rows, 6 and 7 weights.
void configure_tiles(int32_t tokens) {
  TileConfig c{.palette = 1, .start_row = 0, .reserved = {}, .row_bytes = {}, .rows = {}};
  for (int32_t i = 0; i < 8; ++i) c.row_bytes[i] = kRowBytes, c.rows[i] = uint8_t(i < 6 ? tokens : kTileRows);
  __asm__ volatile("ldtilecfg %0" : : "m"(c));
}

inline __m512i to_bf16(__m512 first, __m512 second) { return __m512i(_mm512_cvtne2ps_pbh(second, first)); }

/// What bfloat16 leaves of x[0, 32): x = high + low to 2^-18 of x.
inline void split_pairs(const float* x, __m512i& high, __m512i& low) {
  const __m512 first = _mm512_loadu_ps(x), second = _mm512_loadu_ps(x + 16);
  const auto rest = [](__m512 v, __m256i h) {
    return _mm512_sub_ps(v, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)));
  };
  high = to_bf16(first, second);
  low = to_bf16(rest(first, _mm512_castsi512_si256(high)), rest(second, _mm512_extracti64x4_epi64(high, 1)));
}

/// Tile instructions read and write memory that the compiler does not see.
inline void tile_fence() { __asm__ volatile("" : : : "memory"); }

}  // namespace
}  // namespace awq::kernels
