#pragma once
#include <functional>

#include "quantizer/gram.h"

namespace awq {

// The quantizer's largest products on tiles of bfloat16, where the kernel set has them: some ten times as fast as f32.

inline bool has_tiles(const Host& host) { return host.kernels.tiles_bf16 != nullptr; }

/// `x` in tiles' order: rows of [rows][cols], cols a multiple of 32; of pairs, to 2^-18, or rounded to 2^-9.
class TileRows {
 public:
  TileRows(const kernels::KernelSet& k, const float* x, int64_t rows, int64_t cols, bool pairs);
  /// y[row][0 .. 16 * panels) = x times the panels [panel][cols][16], in f32.
  void times(const uint16_t* panels, int64_t count, float* y, int64_t y_row) const;

 private:
  const kernels::KernelSet& k_;
  Tensor values_;
  kernels::ActBf16 view_;
};

/// Sums of e C e^T with C and e rounded to bfloat16: relative errors of 2^-9 that are random, term by term, so that
/// sums of thousands are good to 2^-12 and better. For ranking, not for reporting.
class TileForm {
 public:
  TileForm(const Host& host, const Gram& gram);
  /// As QuadraticForm::total.
  double total(int64_t rows, const std::function<void(int64_t, int64_t, float*)>& errors) const;
  static int64_t bytes_for(int64_t channels) { return 2 * channels * channels; }

 private:
  double of(const float* e, int64_t m) const;

  const Host& host_;
  int64_t channels_;
  Tensor panels_;  // bf16 [channels / 16][channels][16]: the whole square
};

/// x^T x of f32 x [tokens, channels], added to the upper triangle in `add(i, j, 16 values)`: exact products of pairs to
/// 2^-17. tokens is a multiple of 32.
void add_products(const Host& host, const Tensor& x, const Tensor& xt,
                  const std::function<void(int64_t i, int64_t j, const float* sums, int64_t n)>& add);

}  // namespace awq
