#pragma once
#include <functional>

#include "model/block.h"

namespace awq {

/// A [rows, cols] matrix whose rows are made in f32 when they are asked for, so that no copy of it in f32, scaled or
/// rounded, is ever whole in memory. Reading is safe from several threads; what it reads from must outlive it.
struct Rows {
  int64_t rows = 0, cols = 0;
  std::function<void(int64_t first, int64_t count, float* to)> read;
  Rows() = default;
  Rows(int64_t n, int64_t k, std::function<void(int64_t, int64_t, float*)> r) : rows(n), cols(k), read(std::move(r)) {}
  Rows(const Tensor& t);  // NOLINT(google-explicit-constructor): a matrix in memory is one
};
Rows rows_of(const BlockWeights& w, Param p);
Rows rows_of(const QMatrix& q);  // as an engine sees them
Rows zero_rows(int64_t rows, int64_t cols);
/// Rows 0, step, 2 * step ...
Rows every(int64_t step, const Rows& w);
/// One below the other; all have the same columns.
Rows joined(std::vector<Rows> parts);
/// w * s
Rows scaled(const Rows& w, std::span<const float> s);
/// What an engine would see of a scaled matrix after folding: q / s.
Rows unscaled(const QMatrix& q, std::span<const float> s);
/// What an engine would see after scaling, rounding and folding: round(w * s) / s.
Rows effective(const Rows& w, std::span<const float> s, const QuantSpec& spec);
/// In bands of f32, for a device.
Pieces pieces_of(const Rows& w);

}  // namespace awq
