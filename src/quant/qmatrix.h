#pragma once
#include <algorithm>
#include <optional>
#include <variant>

#include "tensor/tensor.h"

namespace awq {

/// How a weight matrix is stored. Value type; two equal specs mean bit-compatible matrices.
struct QuantSpec {
  static constexpr int kWholeRow = -1;
  int bits = 4;
  int group_size = 128;  // columns (input channels) that share a scale; kWholeRow: all, whatever the matrix has
  DType scale_dtype = DType::f16;
  bool offsets = false;    // instead of zero points
  bool symmetric = false;  // every zero point is the middle, 2^(bits - 1), and files need not hold them
  /// Scales have so few significant bits that zero * scale is a value of scale_dtype for every zero point: formats with
  /// offsets then hold the same weights, to the last bit.
  bool portable_scales = false;
  bool operator==(const QuantSpec&) const = default;
  int levels() const { return (1 << bits) - 1; }
  int middle() const { return 1 << (bits - 1); }
  int scale_digits() const;  // significant bits of a scale
  /// With the group size that a matrix of so many columns has.
  QuantSpec of_width(int64_t cols) const {
    QuantSpec own = *this;
    if (group_size == kWholeRow) own.group_size = int(cols);
    return own;
  }
};

/// A code, and its part of a scale of 16 bits and of a zero point as wide as a code, or of an offset of 16 bits; where
/// all zero points are the middle, of none.
double bits_per_weight(const QuantSpec& spec, int64_t cols);

/// A quantized [rows, cols] matrix in the one layout every other layout is converted to and from: codes row-major and
/// unpacked to one per byte, what groups have as [rows, cols / group_size].
///
///     w[r][c] = (codes[r][c] - zeros[r][g]) * scales[r][g]            with g = c / group_size, or where spec.offsets
///     w[r][c] = codes[r][c] * scales[r][g] + offsets[r][g]
///
/// Files and kernels have their own layouts; this is the hub that keeps them from knowing each other.
struct QMatrix {
  QuantSpec spec;
  Tensor codes;         // u8 [rows, cols]
  Tensor scales;        // f32 [rows, groups], holding values that spec.scale_dtype represents
  Tensor zeros;         // u8 [rows, groups]; empty where spec.offsets
  Tensor offsets = {};  // f32 [rows, groups], values of spec.scale_dtype too; empty unless spec.offsets
  /// i32 [cols], a permutation: column c of all the above is column order[c] of the matrix. Empty: they are the same.
  /// GPTQ puts columns of one group together by importance, not by place.
  Tensor order = {};
  /// f32 [cols]: activations are multiplied by it before the matrix is, so that its columns are those of the codes
  /// times it. Empty: 1. ModelOpt keeps the search's scales there instead of folding them into the layer before.
  Tensor inputs = {};
  /// With room for a [rows, cols] matrix. Throws Error if group_size does not divide cols.
  static QMatrix empty(Shape shape, const QuantSpec& spec);
  int64_t rows() const { return codes.shape()[0]; }
  int64_t cols() const { return codes.shape()[1]; }
  int64_t groups() const { return cols() / spec.group_size; }
  QMatrix row_range(int64_t begin, int64_t end) const;  // shares data
};

/// The first group, counted by rows, whose scale or offset is not finite.
std::optional<int64_t> first_bad_grid(const QMatrix& q);
/// offset = -(zero * scale) of every group, rounded once to the type of the scales.
QMatrix with_offsets(const QMatrix& q);
/// The same codes and scales with the zero points whose offsets, rounded like that, are the ones given; nothing where a
/// group has none in 0 .. levels.
std::optional<QMatrix> with_zeros(const QMatrix& q);

/// A parameter as checkpoints hold it.
using Weight = std::variant<Tensor, QMatrix>;

/// Range of one group before rounding. Always contains zero, so that zero is a level and no group is cut off.
struct Range {
  float low = 0, high = 0;
  bool operator==(const Range&) const = default;
  float largest() const { return std::max(-low, high); }
  Range clipped(float bound) const { return {std::max(low, -bound), std::min(high, bound)}; }
};
/// One group's levels: (code - zero) * scale for code in 0 .. levels.
struct Grid {
  float scale = 0;
  int zero = 0;
};
Range range_of(std::span<const float> group);
/// The nearest scale of spec.scale_digits() that the type holds, at least its smallest.
float rounded_scale(float exact, const QuantSpec& spec);
/// Scale rounded to spec.scale_dtype first, then the zero point and all codes from the rounded scale. A range too wide
/// for the scale's type gives an infinite scale. Symmetric: levels spread over +-the larger end, half a step beyond the
/// highest of them, as compressed-tensors has it; so all 2^bits are used.
Grid grid_of(Range range, const QuantSpec& spec);
/// codes[i] = clamp(round(w[i] / scale) + zero), half to even.
void encode(std::span<const float> w, Grid g, int levels, uint8_t* codes);
/// out[i] = the level nearest to w[i].
void round_to(std::span<const float> w, Grid g, int levels, float* out);

/// Round-to-nearest of a f32 [rows, cols] matrix on the grids of each group's range, or of `ranges`, [rows * groups] in
/// row order, where given. Throws Error if group_size does not divide cols or a scale does not fit its type.
QMatrix quantize(const Tensor& w, const QuantSpec& spec, std::span<const Range> ranges = {});
Tensor dequantize(const QMatrix& q);                                         // f32 [rows, cols]
void dequantize(const QMatrix& q, int64_t first, int64_t count, float* to);  // rows [first, first + count)

}  // namespace awq
