#pragma once
#include "engine/runtime.h"
#include "eval/change.h"
#include "eval/divergence.h"

namespace awq {

/// Changes that are calibrated on the same sequences.
struct StudyPart {
  std::span<const std::vector<int32_t>> sequences;  // of one length
  CalibrationOptions calibration;
  std::vector<std::unique_ptr<Change>> changes;
};

struct StudyFlow {
  const Checkpoint& source;
  std::span<const StudyPart> parts;
  std::span<const int32_t> windows;  // tokens that changes are measured on
  int window = 0;                    // tokens of each
  Device& device;
  std::function<void(int done, int total)> progress;  // changes of blocks; may throw to cancel
};

/// Scores of each window: first of the float model, whose kl is 0, then of each part's changes made to all blocks.
/// Blocks are loaded one at a time, calibrated on the float model's activations, and run as they are and as each change
/// has them: neither a whole float model nor a changed one is ever in memory, but the hidden states of each.
std::vector<std::vector<WindowScore>> study(const StudyFlow& flow);

}  // namespace awq
