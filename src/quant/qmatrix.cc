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

/// The nearest number of so many significant bits, half to even.
float with_digits(float v, int digits) {
  int exponent = 0;
  const float fraction = std::frexp(v, &exponent);  // 0.5 <= fraction < 1
  return std::ldexp(round_even(std::ldexp(fraction, digits)), exponent - digits);
}

// w / scale may be huge for a scale at its floor; clamping before rounding gives the same codes.
float level_of(float w, Grid g, int levels) {
  const float low = float(-g.zero), high = float(levels - g.zero);
  return round_even(std::min(std::max(w / g.scale, low), high));
}

float offset_of(int zero, float scale, DType t) { return rounded_to(-(float(zero) * scale), t); }

}  // namespace

double bits_per_weight(const QuantSpec& q, int64_t cols) {
  const int of_zero = q.symmetric ? 0 : q.offsets ? 16 : q.bits;
  return q.bits + (16.0 + of_zero) / q.of_width(cols).group_size;
}

Range range_of(std::span<const float> group) {
  constexpr size_t kLanes = 16;  // side by side, which a compiler may vectorize as they stand
  float low[kLanes] = {}, high[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= group.size(); i += kLanes)
    for (size_t k = 0; k < kLanes; ++k) {
      low[k] = std::min(low[k], group[i + k]);
      high[k] = std::max(high[k], group[i + k]);
    }
  for (; i < group.size(); ++i) low[0] = std::min(low[0], group[i]), high[0] = std::max(high[0], group[i]);
  return {std::ranges::min(low), std::ranges::max(high)};
}

int QuantSpec::scale_digits() const {
  const int all = scale_dtype == DType::f16 ? 11 : scale_dtype == DType::bf16 ? 8 : 24;
  return portable_scales ? all - bits : all;
}

// Below its smallest normal number f16 has fewer bits than that, and loses none of a product by a whole number.
float rounded_scale(float exact, const QuantSpec& spec) {
  const float few = spec.portable_scales && std::isfinite(exact) ? with_digits(exact, spec.scale_digits()) : exact;
  return std::max(rounded_to(few, spec.scale_dtype), smallest_scale(spec.scale_dtype));
}

Grid grid_of(Range range, const QuantSpec& spec) {
  if (spec.symmetric) return {rounded_scale(2 * range.largest() / float(spec.levels()), spec), spec.middle()};
  const float exact = (range.high - range.low) / float(spec.levels());
  const float scale = rounded_scale(exact, spec);
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
  const int64_t cols = shape[1];
  const QuantSpec own = spec.of_width(cols);
  const int g = own.group_size;
  if (g < 1 || cols % g) fail("quantize", "a group of {} columns does not divide a matrix of {} columns", g, cols);
  const Shape grids = {shape[0], cols / g};
  return {own, Tensor::empty(shape, DType::u8), Tensor::empty(grids, DType::f32),
          spec.offsets ? Tensor() : Tensor::empty(grids, DType::u8),
          spec.offsets ? Tensor::empty(grids, DType::f32) : Tensor()};
}

QMatrix QMatrix::row_range(int64_t begin, int64_t end) const {
  const auto part = [=](const Tensor& t) { return t ? t.rows(begin, end) : Tensor(); };
  return {spec, part(codes), part(scales), part(zeros), part(offsets), order, inputs};
}

std::optional<int64_t> first_bad_grid(const QMatrix& q) {
  for (const Tensor& t : {q.scales, q.offsets}) {
    if (!t) continue;
    const auto v = t.as<float>();
    const auto it = std::ranges::find_if(v, [](float x) { return !std::isfinite(x); });
    if (it != v.end()) return it - v.begin();
  }
  return std::nullopt;
}

QMatrix with_offsets(const QMatrix& q) {
  if (q.spec.offsets) return q;
  QMatrix out = q;
  out.spec.offsets = true;
  out.offsets = Tensor::empty(q.scales.shape(), DType::f32);
  for (size_t g = 0; g < q.scales.as<float>().size(); ++g)
    out.offsets.as<float>()[g] = offset_of(q.zeros.as<uint8_t>()[g], q.scales.as<float>()[g], q.spec.scale_dtype);
  out.zeros = Tensor();
  return out;
}

std::optional<QMatrix> with_zeros(const QMatrix& q) {
  if (!q.spec.offsets) return q;
  QMatrix out = q;
  out.spec.offsets = false;
  out.zeros = Tensor::empty(q.scales.shape(), DType::u8);
  for (size_t g = 0; g < q.scales.as<float>().size(); ++g) {
    const float scale = q.scales.as<float>()[g], offset = q.offsets.as<float>()[g];
    const float zero = scale == 0 ? 0.f : std::clamp(round_even(-offset / scale), 0.f, float(q.spec.levels()));
    if (offset_of(int(zero), scale, q.spec.scale_dtype) != offset) return std::nullopt;
    out.zeros.as<uint8_t>()[g] = uint8_t(zero);
  }
  out.offsets = Tensor();
  return out;
}

QMatrix quantize(const Tensor& w, const QuantSpec& spec, std::span<const Range> ranges) {
  QMatrix q = QMatrix::empty(w.shape(), spec);
  const int64_t g = q.spec.group_size;
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
  const auto g = size_t(q.spec.group_size), cols = size_t(q.cols()), begin = size_t(first) * cols;
  const uint8_t* codes = q.codes.as<uint8_t>().data() + begin;
  const float* scales = q.scales.as<float>().data() + begin / g;
  const float* offsets = q.spec.offsets ? q.offsets.as<float>().data() + begin / g : nullptr;
  const uint8_t* zeros = q.spec.offsets ? nullptr : q.zeros.as<uint8_t>().data() + begin / g;
  const auto value = [=](size_t i, size_t at) {
    return offsets ? float(codes[i]) * scales[at] + offsets[at] : float(int(codes[i]) - int(zeros[at])) * scales[at];
  };
  const int32_t* order = q.order ? q.order.as<int32_t>().data() : nullptr;
  const float* inputs = q.inputs ? q.inputs.as<float>().data() : nullptr;
  for (size_t i = 0; i < size_t(count) * cols; i += g)
    for (size_t c = i; c < i + g; ++c) {
      const size_t column = order ? size_t(order[c % cols]) : c % cols;
      to[c / cols * cols + column] = value(c, i / g) * (inputs ? inputs[column] : 1.f);
    }
}

Tensor dequantize(const QMatrix& q) {
  Tensor w = Tensor::empty(q.codes.shape(), DType::f32);
  dequantize(q, 0, q.rows(), w.as<float>().data());
  return w;
}

}  // namespace awq
