#pragma once
#include "kernels/kernels.h"
#include "tensor/tensor.h"

namespace awq {

/// Rows of activations that a kernel set writes to at once: a multiple of its token_block.
inline int64_t room_for(int64_t rows, const kernels::KernelSet& k) {
  return (rows + k.token_block - 1) / k.token_block * k.token_block;
}

/// f32 [rows, cols] as bfloat16 in the order of a set's tiles, or as pairs of them, exact to 2^-18; `prepare` fills
/// some rows, from any thread. Reads x, which outlives it.
struct TileRows {
  TileRows(const kernels::KernelSet& set, const float* x, int64_t rows, int64_t cols, bool pairs = false)
      : k(set),
        from(x),
        values(Tensor::empty({room_for(rows, k), cols * (pairs ? 2 : 1)}, DType::bf16)),
        view{reinterpret_cast<uint16_t*>(values.data()), int32_t(rows), int32_t(cols), pairs} {}
  /// begin and end: multiples of token_block, or all rows
  void prepare(int32_t begin, int32_t end) const { k.split_bf16(from, view, begin, end, 0, view.cols); }
  /// Of all rows, columns [first, last): multiples of 32
  void prepare_columns(int64_t first, int64_t last) const {
    k.split_bf16(from, view, 0, view.tokens, int32_t(first), int32_t(last));
  }

  const kernels::KernelSet& k;
  const float* from;
  Tensor values;
  kernels::ActBf16 view;
};

}  // namespace awq
