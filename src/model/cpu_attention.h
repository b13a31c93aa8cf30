#pragma once
#include "base/parallel.h"
#include "kernels/kernels.h"
#include "model/backend.h"

namespace awq {

/// Keys in panels of 16 positions [kv_heads][capacity / 16][head_dim][16] and values [kv_heads][capacity][head_dim]:
/// both are what a gemm reads as its matrix b, so attention is two matrix products and a softmax.
class CpuKvCache final : public KvCache {
 public:
  CpuKvCache(std::span<const BlockSpec> blocks, DType dtype);
  int64_t bytes() const override;
  std::unique_ptr<KvCache> clone() const override;
  /// Makes room for `positions` and keeps what is there.
  void reserve(int block, int64_t positions);
  /// k, v: kv_rows values of one position.
  void put(int block, int64_t position, const float* k, const float* v);
  DType dtype() const { return dtype_; }
  const void* keys(int block, int head, int64_t position) const {
    return at(blocks_[size_t(block)], &PerBlock::k, head, position);
  }  // position a multiple of 16
  const void* values(int block, int head, int64_t position) const {
    return at(blocks_[size_t(block)], &PerBlock::v, head, position);
  }

 private:
  struct PerBlock {
    int64_t heads = 0, head_dim = 0, capacity = 0;
    Tensor k{}, v{};
  };
  const std::byte* at(const PerBlock& b, Tensor PerBlock::*t, int64_t head, int64_t position) const {
    return (b.*t).data() + size_t((head * b.capacity + position) * b.head_dim) * size_of(dtype_);
  }
  DType dtype_;
  std::vector<PerBlock> blocks_;
};

void cpu_attention(ThreadPool& pool, const kernels::KernelSet& kernels, const Tensor& q, const Tensor& k,
                   const Tensor& v, Batch batch, int block, const AttentionSpec& spec, Tensor& y);

}  // namespace awq
