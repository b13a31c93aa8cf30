#include "quant/qmatrix.h"

#include <cmath>

#include "base/numeric.h"

namespace awq {
namespace {

// Half to even, for |v| < 2^22: adding 1.5 * 2^23 leaves no fraction bits. Unlike nearbyint, it vectorises everywhere.
float round_even(float v) { return (v + 12582912.f) - 12582912.f; }

float rounded_to(float v, DType t) {
  if (t == DType::f16) return f16_to_f32(f32_to_f16(v));
  if (t == DType::bf16) return bf16_to_f32(f32_to_bf16(v));
  return v;
}

// The smallest scale a type can hold: a group of zeros, or of values too small for it, rounds to zeros.
float smallest_scale(DType t) { return t == DType::f16 ? 0x1p-24f : 0x1p-126f; }

// w / scale may be huge for a scale at its floor; clamping before rounding gives the same codes.
float level_of(float w, Grid g, int levels) {
  const float low = float(-g.zero), high = float(levels - g.zero);
  return round_even(std::min(std::max(w / g.scale, low), high));
}

}  // namespace

Range range_of(std::span<const float> group) {
  Range r;
  for (float w : group) {
    r.low = std::min(r.low, w);
    r.high = std::max(r.high, w);
  }
  return r;
}

float rounded_scale(float exact, DType type) { return std::max(rounded_to(exact, type), smallest_scale(type)); }

Grid grid_of(Range range, const QuantSpec& spec) {
  const float exact = (range.high - range.low) / float(spec.levels());
  const float scale = rounded_scale(exact, spec.scale_dtype);
  const float zero = std::min(round_even(std::min(-range.low / scale, 256.f)), float(spec.levels()));
  return {scale, int(zero)};
}

void encode(std::span<const float> w, Grid g, int levels, uint8_t* codes) {
  for (size_t i = 0; i < w.size(); ++i) codes[i] = uint8_t(int(level_of(w[i], g, levels)) + g.zero);
}

void round_to(std::span<const float> w, Grid g, int levels, float* out) {
  for (size_t i = 0; i < w.size(); ++i) out[i] = level_of(w[i], g, levels) * g.scale;
}

QMatrix QMatrix::empty(Shape shape, const QuantSpec& spec) {
  const int64_t cols = shape[1], g = spec.group_size;
  if (g < 1 || cols % g) fail("quantize", "a group of {} columns does not divide a matrix of {} columns", g, cols);
  const Shape grids = {shape[0], cols / g};
  return {spec, Tensor::empty(shape, DType::u8), Tensor::empty(grids, DType::f32), Tensor::empty(grids, DType::u8)};
}

QMatrix quantize(const Tensor& w, const QuantSpec& spec, std::span<const Range> ranges) {
  QMatrix q = QMatrix::empty(w.shape(), spec);
  const int64_t g = spec.group_size;
  const auto in = w.as<float>();
  for (int64_t i = 0; i < q.rows() * q.groups(); ++i) {
    const auto group = in.subspan(size_t(i * g), size_t(g));
    const Range r = ranges.empty() ? range_of(group) : ranges[size_t(i)];
    const Grid grid = grid_of(r, spec);
    if (!std::isfinite(grid.scale))
      fail("quantize", "weights from {} to {} need a scale beyond the range of {}", r.low, r.high,
           name_of(spec.scale_dtype));
    encode(group, grid, spec.levels(), q.codes.as<uint8_t>().data() + i * g);
    q.scales.as<float>()[size_t(i)] = grid.scale;
    q.zeros.as<uint8_t>()[size_t(i)] = uint8_t(grid.zero);
  }
  return q;
}

void dequantize(const QMatrix& q, int64_t first, int64_t count, float* to) {
  const auto g = size_t(q.spec.group_size), begin = size_t(first * q.cols()), n = size_t(count * q.cols());
  const uint8_t *codes = q.codes.as<uint8_t>().data() + begin, *zeros = q.zeros.as<uint8_t>().data() + begin / g;
  const float* scales = q.scales.as<float>().data() + begin / g;
  for (size_t i = 0; i < n; i += g)
    for (size_t c = i; c < i + g; ++c) to[c] = float(int(codes[c]) - int(zeros[i / g])) * scales[i / g];
}

Tensor dequantize(const QMatrix& q) {
  Tensor w = Tensor::empty(q.codes.shape(), DType::f32);
  dequantize(q, 0, q.rows(), w.as<float>().data());
  return w;
}

}  // namespace awq
