#pragma once
#include "model/backend.h"
#include "model/cuda_memory.h"
#include "model/delta.h"

namespace awq {

/// Pages of kKvPage positions; a page has all blocks' keys and values, in the form of cuda::KvShape.
class CudaKvCache final : public KvCache {
 public:
  /// f16, bf16, int8 or e4m3. Throws Error for another type, or for heads that are wider than kernels are made for.
  CudaKvCache(std::shared_ptr<CudaMemory> memory, std::span<const BlockSpec> blocks, DType dtype);
  int64_t bytes() const override { return int64_t(pages_.size()) * page_bytes_ + deltas_.bytes(); }
  std::unique_ptr<KvCache> clone() const override;
  int64_t bytes_for(int64_t positions) const override;
  DeltaState& delta(int block) override { return deltas_.at(block); }
  int page_positions() const override { return cuda::kKvPage; }
  std::vector<Tensor> page(int64_t index) const override { return {pages_.at(size_t(index))}; }
  void put_page(int64_t index, std::span<const Tensor> page) override;
  void make_room(int64_t positions) override;
  void reserve(int64_t positions);
  int64_t page_bytes() const { return page_bytes_; }
  const cuda::KvShape& shape(int block) const { return shapes_.at(size_t(block)); }
  std::span<const Tensor> pages() const { return pages_; }

 private:
  std::shared_ptr<CudaMemory> memory_;
  std::vector<cuda::KvShape> shapes_;  // of blocks
  int64_t page_bytes_ = 0;
  std::vector<Tensor> pages_;
  DeltaStates deltas_;
};

}  // namespace awq
