#pragma once
#include <functional>

#include "engine/runtime.h"

namespace awq {

struct SelfCalibrationOptions {
  int sequences = 0, length = 0;  // tokens each
  double temperature = 1.0;
  uint64_t seed = 0;
  int batch = 32;  // sequences computed together
};

/// Text that the model writes itself: each sequence starts with one of `openings` (token lists) and is sampled until it
/// has `length` tokens; where the model ends a text, the next opening follows in the same sequence. Every sequence has
/// a random stream of its own, so the result does not depend on `batch` or threads. `progress(done, total)` in tokens.
std::vector<std::vector<int32_t>> write_calibration(Device& device, const Model& model, const TextSide& text,
                                                    std::span<const std::vector<int32_t>> openings,
                                                    const SelfCalibrationOptions& options,
                                                    const std::function<void(int64_t done, int64_t total)>& progress);

}  // namespace awq
