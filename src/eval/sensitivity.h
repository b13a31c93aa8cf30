#pragma once
#include "engine/runtime.h"
#include "quantizer/method.h"

namespace awq {

/// KL of one matrix, over windows.
struct MatrixSensitivity {
  int block = 0;
  Param param;
  std::vector<double> kl;  // of each window: mean KL(original || only this matrix quantized), nats a token
};

struct SensitivityFlow {
  const Checkpoint& source;
  const Model& model;  // the float model
  const Method& method;
  QuantSpec spec;
  std::span<const std::vector<int32_t>> sequences;  // for the method's search, as in QuantizeFlow
  CalibrationOptions calibration;
  std::span<const int32_t> windows;  // tokens that KL is measured on
  int window = 0;                    // tokens of each
  Device& device;
  std::function<void(int block, int blocks)> progress;  // may throw to cancel
};

/// For each block: its search, then for each of its matrices the model with that matrix alone as the search rounded it,
/// from the hidden states before the block to the last. Everything else is float. In the model's order.
std::vector<MatrixSensitivity> sensitivities(const SensitivityFlow& flow);

}  // namespace awq
