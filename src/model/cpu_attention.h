#pragma once
#include "base/parallel.h"
#include "kernels/kernels.h"
#include "model/delta.h"

namespace awq {

/// Pages of kKvPage positions: in each block one piece of memory a page, all kv heads after each other in the form of
/// kernels::AttentionStep. A cache grows by whole pages, so growing never copies, the peak is what it holds, and only
/// pages that are written to become resident.
class CpuKvCache final : public KvCache {
 public:
  CpuKvCache(std::span<const BlockSpec> blocks, DType dtype);
  int64_t bytes() const override;
  std::unique_ptr<KvCache> clone() const override;
  int64_t bytes_for(int64_t positions) const override;
  DeltaState& delta(int block) override { return deltas_.at(block); }
  int page_positions() const override { return kernels::kKvPage; }
  std::vector<Tensor> page(int64_t index) const override;
  void put_page(int64_t index, std::span<const Tensor> page) override;
  /// Throws Error unless as many were put.
  void require(int block, int64_t positions) const;
  /// Makes room for `positions` and keeps what is there.
  void reserve(int block, int64_t positions);
  /// k: kv_rows values of one position, v: v_rows. Different positions may be put by different threads.
  void put(int block, int64_t position, const float* k, const float* v);
  DType dtype() const { return dtype_; }
  const void* page(int block, int head, int64_t index) const {
    const PerBlock& b = blocks_[size_t(block)];
    return b.pages[size_t(index)].data() + head * head_bytes(b);
  }

 private:
  struct PerBlock {
    int64_t heads = 0, head_dim = 0, value_dim = 0;
    std::vector<Tensor> pages{};
  };
  int64_t head_bytes(const PerBlock& b) const;
  DType dtype_;
  std::vector<PerBlock> blocks_;
  DeltaStates deltas_;
};

void cpu_attention(ThreadPool& pool, const kernels::KernelSet& kernels, const Tensor& q, const Tensor& k,
                   const Tensor& v, std::span<const float> sinks, Batch batch, int block, const AttentionSpec& spec,
                   Tensor& y);

}  // namespace awq
