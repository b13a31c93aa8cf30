#pragma once
#include "base/parallel.h"
#include "kernels/kernels.h"
#include "model/backend.h"

namespace awq {

/// What a cache holds of its blocks' delta nets; nothing for other blocks.
class DeltaStates {
 public:
  explicit DeltaStates(std::span<const BlockSpec> blocks);
  DeltaState& at(int block) { return states_.at(size_t(block)); }
  int64_t bytes() const;
  int64_t bytes_for(int64_t positions) const { return positions > 0 ? bytes_ : 0; }
  void unshare();  // after a copy: memory of its own

 private:
  std::vector<DeltaState> states_;
  int64_t bytes_ = 0;  // once they hold anything
};

/// Backend::delta of tensors on the host. Token by token, so that a token's bits do not depend on how it came.
void delta_rule(ThreadPool& pool, const kernels::KernelSet& kernels, const DeltaInput& in, Batch batch, int block,
                const DeltaSpec& spec, Tensor& y);

}  // namespace awq
