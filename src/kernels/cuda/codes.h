#pragma once
// A matrix's codes and grids as a warp reads them: see Matrix in contract.h.
#include "kernels/cuda/lanes.h"

namespace awq::cuda {

/// Bytes of sixteen rows of a unit.
template <int Bits>
constexpr int kSixteenRows = 128 * Bits;

/// A lane's part of sixteen rows of a unit: `Bits` words, of which each of the four steps has Bits / 4.
template <int Bits>
struct LaneCodes {
  uint32_t w[Bits];
};

template <int Bits, class Load>
AWQ_DEVICE LaneCodes<Bits> lane_codes(const uint8_t* sixteen_rows, Load load) {
  LaneCodes<Bits> c;
  AWQ_UNROLL
  for (int v = 0; v < Bits / 4; ++v) {
    const Words4 four = load(sixteen_rows + (v * kWarp + lane()) * 16);
    AWQ_UNROLL
    for (int i = 0; i < 4; ++i) c.w[4 * v + i] = four.w[i];
  }
  return c;
}

/// Where a column lies in its 32: step p of an mma takes of column 8 t + 4 p + 2 r + i the place 2 t + 8 r + i.
AWQ_DEVICE int grouped_column(int column) {
  return column % 8 / 4 * 16 + column % 4 / 2 * 8 + column / 8 * 2 + column % 2;
}

/// Codes to 16-bit floats by their bits: a code in the low bits of the fraction of 2^10 (f16) or 2^7 (bf16) is that
/// power plus the code, and taking the power away leaves it, exactly. bf16's fraction has 7 bits, so 8-bit codes go by
/// halves.
template <class T>
struct Magic;
template <>
struct Magic<F16> {
  static constexpr uint32_t kPower = 0x64006400u;
};
template <>
struct Magic<Bf16> {
  static constexpr uint32_t kPower = 0x43004300u;
};
template <class T>
AWQ_DEVICE uint32_t small_codes(uint32_t pair) {
  return T::subtract(pair | Magic<T>::kPower, Magic<T>::kPower);
}
AWQ_DEVICE uint32_t byte_codes(uint32_t pair, F16) { return small_codes<F16>(pair); }
AWQ_DEVICE uint32_t byte_codes(uint32_t pair, Bf16) {
  return Bf16::fused2(small_codes<Bf16>(pair >> 4 & 0x000f000fu), 0x41804180u /* 16 */,
                      small_codes<Bf16>(pair & 0x000f000fu));
}

/// The mma's left registers of one step.
template <class T, int Bits>
AWQ_DEVICE void step_codes(const LaneCodes<Bits>& c, int step, uint32_t (&a)[4]) {
  AWQ_UNROLL
  for (int i = 0; i < 4; ++i) {
    if constexpr (Bits == 4)
      a[i] = small_codes<T>(c.w[step] >> (4 * i) & 0x000f000fu);
    else if constexpr (Bits == 8)
      a[i] = byte_codes(c.w[2 * step + i / 2] >> (8 * (i % 2)) & 0x00ff00ffu, T{});
    else
      a[i] = c.w[4 * step + i];
  }
}

AWQ_DEVICE float grid_value(const void* p, bool half, int64_t i) {
  return half ? F16::low(static_cast<const uint16_t*>(p)[i]) : static_cast<const float*>(p)[i];
}
struct Grid {
  float scale, offset;
};
/// Of a row in its tile of 32. Products of a scale of 11 bits and a zero point are exact in float.
AWQ_DEVICE Grid grid_at(const Matrix& w, int64_t row_tile, int group, int row) {
  const int64_t i = (row_tile * w.groups + group) * kRowTile + row;
  const float scale = grid_value(w.scales, w.half_scales, i);
  if (w.zeros) return {scale, -(float(w.zeros[i]) * scale)};
  return {scale, w.offsets ? grid_value(w.offsets, w.half_scales, i) : 0.f};
}
AWQ_DEVICE int group_of(const Matrix& w, int column) {
  const int g = column / w.group;
  return g < w.groups ? g : w.groups - 1;  // columns that pad the last unit
}

AWQ_DEVICE int units_of(const Matrix& w) { return (w.cols + kUnitColumns - 1) / kUnitColumns; }
AWQ_DEVICE int row_tiles_of(const Matrix& w) { return (w.rows + kRowTile - 1) / kRowTile; }

/// Sums of a warp's 32 rows x 8 Tokens8 tokens: [sixteen rows][eight tokens][the mma's four].
template <int Tokens8>
struct Sums {
  float v[2][Tokens8][4];
  AWQ_DEVICE void clear() {
    AWQ_UNROLL
    for (int r = 0; r < 2; ++r) AWQ_UNROLL
    for (int n = 0; n < Tokens8; ++n) AWQ_UNROLL
    for (int i = 0; i < 4; ++i) v[r][n][i] = 0;
  }
};

/// sum += scale * part + offset * (sum of activations). `columns` of the unit are 32, the half-th, or all 64.
template <int Tokens8>
AWQ_DEVICE void apply_grids(const Matrix& w, const Act& x, int64_t row_tile, int unit, int half, bool both, int token,
                            const Sums<Tokens8>& part, Sums<Tokens8>& sum) {
  const int g = lane() / 4, t = lane() % 4, block32 = 2 * unit + half, per_token = x.padded / kSumColumns;
  const int group = group_of(w, block32 * kSumColumns);
  Grid grid[4];
  AWQ_UNROLL
  for (int i = 0; i < 4; ++i) grid[i] = grid_at(w, row_tile, group, 8 * i + g);
  AWQ_UNROLL
  for (int n = 0; n < Tokens8; ++n) AWQ_UNROLL
  for (int c = 0; c < 2; ++c) {
    const int at = token + 8 * n + 2 * t + c;
    const float* s = x.sums + int64_t(at) * per_token + block32;
    const float xs = at >= x.tokens ? 0.f : both ? s[0] + s[1] : s[0];
    AWQ_UNROLL
    for (int r = 0; r < 2; ++r) AWQ_UNROLL
    for (int h = 0; h < 2; ++h) {
      const Grid& p = grid[2 * r + h];
      sum.v[r][n][2 * h + c] += fused(p.scale, part.v[r][n][2 * h + c], p.offset * xs);
    }
  }
}

/// A warp's product of one unit: codes of 32 rows, and activations that `chunk(n, half)` gives, 8 columns of token
/// 8 n + lane / 4 of those of the half that are this lane's.
template <class T, int Bits, int Tokens8, class Chunk>
AWQ_DEVICE void multiply_unit(const Matrix& w, const Act& x, const LaneCodes<Bits> (&codes)[2], int64_t row_tile,
                              int unit, int token, Chunk chunk, Sums<Tokens8>& sum) {
  const bool split = Bits < 16 && w.group % kUnitColumns != 0 && w.groups > 1;  // halves are of different groups
  Sums<Tokens8> part;
  if constexpr (Bits < 16) part.clear();
  AWQ_UNROLL
  for (int half = 0; half < 2; ++half) {
    uint32_t a[2][2][4];  // [step][sixteen rows]: 16 registers, where the tokens' would be up to 32
    AWQ_UNROLL
    for (int p = 0; p < 2; ++p) AWQ_UNROLL
    for (int r = 0; r < 2; ++r) step_codes<T, Bits>(codes[r], 2 * half + p, a[p][r]);
    AWQ_UNROLL
    for (int n = 0; n < Tokens8; ++n) {
      const Words4 b = chunk(n, half);
      AWQ_UNROLL
      for (int p = 0; p < 2; ++p) AWQ_UNROLL
      for (int r = 0; r < 2; ++r) T::mma((Bits < 16 ? part : sum).v[r][n], a[p][r], b.w[2 * p], b.w[2 * p + 1]);
    }
    if (split) {
      apply_grids<Tokens8>(w, x, row_tile, unit, half, false, token, part, sum);
      part.clear();
    }
  }
  if (Bits < 16 && !split) apply_grids<Tokens8>(w, x, row_tile, unit, 0, true, token, part, sum);
}

}  // namespace awq::cuda
