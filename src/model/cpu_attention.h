#pragma once
#include "base/parallel.h"
#include "kernels/kernels.h"
#include "model/backend.h"

namespace awq {

/// Keys in panels of 16 positions [kv_heads][capacity / 16][head_dim][16] and values [kv_heads][capacity][head_dim]: both
/// are what gemm_f32 reads as its matrix b, so attention is two matrix products and a softmax.
class CpuKvCache final : public KvCache {
 public:
  explicit CpuKvCache(std::span<const BlockSpec> blocks);
  int64_t bytes() const override;
  /// Makes room for `positions` and keeps what is there.
  void reserve(int block, int64_t positions);
  /// k, v: kv_rows values of one position.
  void put(int block, int64_t position, const float* k, const float* v);
  const float* keys(int block, int head, int64_t position) const;  // position a multiple of 16
  const float* values(int block, int head, int64_t position) const;

 private:
  struct PerBlock {
    int64_t heads = 0, head_dim = 0, capacity = 0;
    Tensor k{}, v{};
  };
  std::vector<PerBlock> blocks_;
};

void cpu_attention(ThreadPool& pool, const kernels::KernelSet& kernels, const Tensor& q, const Tensor& k, const Tensor& v, Batch batch,
                   int block, const AttentionSpec& spec, Tensor& y);

}  // namespace awq
