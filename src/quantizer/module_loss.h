#pragma once
#include "quantizer/form.h"
#include "quantizer/method.h"

namespace awq {

/// How far the output of the module that a group's layers feed moves when they change, on the sample of its inputs: the
/// attention, the MLP, or both where the block adds both. All arguments must outlive it.
class ModuleLoss {
 public:
  /// `block` is `w` on the device, unchanged. Exact: all of the module's matrices in f32. Fastest: in running_type(),
  /// changed layers in f32 where that is none; bfloat16, 2^-9 of a weight, moves the loss of rounding to 4 bits by some
  /// 0.1 %.
  ModuleLoss(const ScaleGroup& g, const BlockWeights& w, const Block& block, const BlockCalibration& calibration,
             const SolveContext& context, Products products);
  /// Squared distance to the unchanged output, summed over rows that count, with `changed(p)` in place of each layer.
  double of(const std::function<Rows(Param p)>& changed) const;

 private:
  std::shared_ptr<const Linear> linear(Param p, const Rows& w) const;
  bool attends() const;
  bool reads(Role role) const;
  Tensor output(const Block& b) const;
  Tensor attention(const Block& b, const Tensor& x) const;

  const ScaleGroup& group_;
  const BlockWeights& w_;
  std::optional<DType> type_;
  Block block_;
  const BlockCalibration& calibration_;
  const SolveContext& context_;
  Tensor reference_;
};

}  // namespace awq
