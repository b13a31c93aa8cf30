#include "quantizer/rows.h"

#include <algorithm>

namespace awq {
namespace {

void round_scaled(std::span<float> row, std::span<const float> s, const QuantSpec& spec) {
  const auto g = size_t(spec.of_width(int64_t(row.size())).group_size);
  for (size_t c = 0; c < row.size(); c += g) {
    const auto group = row.subspan(c, g);
    for (size_t i = 0; i < g; ++i) group[i] *= s[c + i];
    round_to(group, grid_of(range_of(group), spec), spec.levels(), group.data());
    for (size_t i = 0; i < g; ++i) group[i] /= s[c + i];
  }
}

}  // namespace

Rows::Rows(const Tensor& t)
    : Rows(t.shape()[0], t.shape()[1],
           [t](int64_t first, int64_t count, float* to) { t.rows(first, first + count).widen(to); }) {}

Rows rows_of(const BlockWeights& w, Param p) {
  const Shape shape = w.tensor(p).shape();
  return {shape[0], shape[1], [&w, p](int64_t first, int64_t count, float* to) { w.read_rows(p, first, count, to); }};
}

Rows rows_of(const QMatrix& q) {
  return {q.rows(), q.cols(), [&q](int64_t first, int64_t count, float* to) { dequantize(q, first, count, to); }};
}

Rows zero_rows(int64_t rows, int64_t cols) {
  return {rows, cols, [cols](int64_t, int64_t count, float* to) { std::fill_n(to, count * cols, 0.f); }};
}

Rows every(int64_t step, const Rows& w) {
  return {(w.rows + step - 1) / step, w.cols, [step, w](int64_t first, int64_t count, float* to) {
            for (int64_t r = first; r < first + count; ++r, to += w.cols) w.read(r * step, 1, to);
          }};
}

Rows joined(std::vector<Rows> parts) {
  int64_t rows = 0;
  for (const Rows& w : parts) rows += w.rows;
  const int64_t cols = parts.front().cols;
  return {rows, cols, [parts = std::move(parts)](int64_t first, int64_t count, float* to) {
            for (const Rows& w : parts) {
              const int64_t begin = std::clamp<int64_t>(first, 0, w.rows),
                            end = std::clamp(first + count, begin, w.rows);
              if (begin < end) w.read(begin, end - begin, to);
              to += (end - begin) * w.cols;
              first -= w.rows;
            }
          }};
}

Rows scaled(const Rows& w, std::span<const float> s) {
  return {w.rows, w.cols, [w, s](int64_t first, int64_t count, float* to) {
            w.read(first, count, to);
            for (int64_t r = 0; r < count; ++r, to += w.cols)
              for (size_t c = 0; c < s.size(); ++c) to[c] *= s[c];
          }};
}

Rows unscaled(const QMatrix& q, std::span<const float> s) {
  return {q.rows(), q.cols(), [q, s](int64_t first, int64_t count, float* to) {
            dequantize(q, first, count, to);
            for (int64_t r = 0; r < count; ++r, to += q.cols())
              for (size_t c = 0; c < s.size(); ++c) to[c] /= s[c];
          }};
}

Rows effective(const Rows& w, std::span<const float> s, const QuantSpec& spec) {
  return {w.rows, w.cols, [w, s, spec](int64_t first, int64_t count, float* to) {
            w.read(first, count, to);
            for (int64_t r = 0; r < count; ++r) round_scaled({to + r * w.cols, size_t(w.cols)}, s, spec);
          }};
}

Pieces pieces_of(const Rows& w) {
  return in_bands({w.rows, w.cols}, DType::f32, w.cols * int64_t(sizeof(float)), 1, [w](int64_t begin, int64_t end) {
    Tensor band = Tensor::empty({end - begin, w.cols}, DType::f32);
    w.read(begin, end - begin, band.as<float>().data());
    return band;
  });
}

}  // namespace awq
