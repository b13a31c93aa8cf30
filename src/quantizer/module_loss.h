#pragma once
#include "quantizer/method.h"

namespace awq {

/// How far the output of the module that a group's layers feed moves when they change, on the sample of its inputs: the
/// attention, the MLP, or both where the block adds both. All arguments must outlive it.
class ModuleLoss {
 public:
  /// `block` is `w` on the device, unchanged.
  ModuleLoss(const ScaleGroup& g, const BlockWeights& w, const Block& block, const BlockCalibration& calibration,
             const SolveContext& context);
  /// Squared distance to the unchanged output, summed over rows that count, with `changed(p)` in place of each layer.
  double of(const std::function<Rows(Param p)>& changed) const;

 private:
  bool reads(Role role) const;
  Tensor output(const Block& b) const;
  Tensor attention(const Block& b, const Tensor& x) const;

  const ScaleGroup& group_;
  const BlockWeights& w_;
  const Block& block_;
  const BlockCalibration& calibration_;
  const SolveContext& context_;
  Tensor reference_;
};

}  // namespace awq
