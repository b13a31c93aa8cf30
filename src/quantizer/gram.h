#pragma once
#include "quantizer/host.h"
#include "tensor/tensor.h"

namespace awq {

/// C = sum of x^T x over tokens, in f32; of x rounded to bfloat16 where there are tiles to multiply it, which moves a
/// product by some 2^-8 at random and a sum over many tokens by far less. Only the upper triangle is kept, in tiles of
/// 64 columns: a product with a tile reads memory in order, and half of the square is never there.
class Gram {
 public:
  static constexpr int64_t kTile = 64;
  Gram() = default;
  /// Zeros. Throws Error if the width is no multiple of a panel.
  explicit Gram(int64_t channels);
  /// += x^T x. The call's products are summed apart and then added, so that rounding grows with the tokens of a call
  /// and the number of calls, not with their product. x f32 [tokens, channels]
  void add(const Host& host, const Tensor& x);

  explicit operator bool() const { return bool(values_); }
  int64_t channels() const { return channels_; }
  float at(int64_t i, int64_t j) const;  // either triangle
  int64_t tiles() const { return (channels_ + kTile - 1) / kTile; }
  int64_t width(int64_t tile) const { return std::min(kTile, channels_ - tile * kTile); }
  int64_t rows(int64_t tile) const {
    return std::min(channels_, (tile + 1) * kTile);
  }  // the rest is below the diagonal
  const float* tile(int64_t t) const { return values_.as<float>().data() + offset(t); }  // [rows][kTile], 0 below
  float* tile(int64_t t) { return values_.as<float>().data() + offset(t); }
  static int64_t bytes_for(int64_t channels);
  /// Of add: a product is one, its addition another.
  static double operations(int64_t tokens, int64_t channels) {
    return double(tokens) * double(channels) * double(channels);
  }

 private:
  static int64_t offset(int64_t tile) { return tile * (tile + 1) / 2 * kTile * kTile; }
  void add_tile(const kernels::KernelSet& k, const Tensor& xt, const Tensor& x, int64_t tile);
  void add_on_tiles(const Host& host, const Tensor& x);
  /// Products of channels [first, first + kBlock) with themselves and those behind them.
  void add_block(const kernels::KernelSet& k, const Tensor& x, const Tensor& panels, int64_t first);
  /// Of channel `row` with channels [col, ...), of which those before `row` are not kept.
  void add_row(int64_t row, int64_t col, std::span<const float> products);

  int64_t channels_ = 0;
  Tensor values_;
};

}  // namespace awq
