#pragma once
#include <functional>

#include "quantizer/gram.h"
#include "quantizer/rows.h"

namespace awq {

/// Exact: in f32. Fastest: on tiles of bfloat16 where the kernel set has them.
enum class Products { exact, fastest };

/// Sums over rows of e C e^T: squared error of a layer's output summed over all calibration tokens. On tiles, for which
/// channels are a multiple of 32, e and C are rounded to bfloat16: 2^-9 of each term, at random. Partial sums are added
/// in row order, so threads do not matter. Reads the Gram matrix, which outlives it.
class QuadraticForm {
 public:
  QuadraticForm(const Host& host, const Gram& gram, Products products = Products::fastest);
  const Host& host() const { return host_; }
  const Gram& gram() const { return gram_; }
  /// The whole square in bfloat16, [channels / 16][channels][16]; null without tiles.
  const uint16_t* panels() const { return panels_ ? reinterpret_cast<const uint16_t*>(panels_.data()) : nullptr; }
  /// `errors(first row, rows, out)` fills rows of e.
  double total(int64_t rows, const std::function<void(int64_t, int64_t, float*)>& errors) const;
  /// e = rounded - w, divided by `divisors` of the channels where there are any: w and `rounded` are then of a layer
  /// whose inputs are divided by them, while the Gram matrix is of the inputs before.
  double loss(const Rows& w, const Rows& rounded, std::span<const float> divisors = {}) const;
  /// Of the layer's own output: what losses are relative to.
  double energy(const Rows& w, std::span<const float> divisors = {}) const;
  /// What it takes beside the Gram matrix.
  static int64_t bytes_for(int64_t channels) { return 2 * channels * channels; }
  /// Of one value: a product is one, its addition another.
  static double operations(const Rows& w) { return double(w.rows) * double(w.cols) * double(w.cols); }

 private:
  double on_tiles(const float* e, int64_t m) const;
  double in_floats(const float* e, int64_t m) const;

  Host host_;
  const Gram& gram_;
  std::vector<float> diagonal_;
  Tensor panels_;  // bf16 [channels / 16][channels][16]: the whole square; empty without tiles
};

}  // namespace awq
