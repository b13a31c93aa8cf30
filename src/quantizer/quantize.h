#pragma once
#include <functional>
#include <optional>
#include <set>

#include "formats/format.h"
#include "quantizer/method.h"

namespace awq {

struct BlockResult {
  int block = 0;
  Solution solution;      // without the matrices, which have been written
  double fold_error = 0;  // relative change of the float block's output by folding
  int64_t tokens = 0;     // seen by each layer
};

struct QuantizeProgress {
  std::string_view stage;  // "calibrate", "search", "write"
  int block = 0, blocks = 0;
  double last_error = -1;  // mean relative error of the last finished block's layers; < 0: none yet
};

struct QuantizeFlow {
  const Checkpoint& source;
  CheckpointSink& sink;
  const Method& method;
  QuantSpec spec;
  /// The head's, rounded to nearest into a matrix of its own even where it is tied; none: as the source has it. Its
  /// norm is not rescaled.
  std::optional<QuantSpec> head;
  /// Calibration sequences, all of the same length. Not looked at by a method that needs none.
  std::span<const std::vector<int32_t>> sequences;
  CalibrationOptions calibration;
  Backend& dev;
  Host host;
  std::function<void(const QuantizeProgress&)> progress;  // may throw to cancel
  /// Called with each block's solution before its matrices are written.
  std::function<void(int block, const Solution&)> on_solved{};
  std::set<std::pair<int, Param>> kept{};  // matrices that are stored in 16 bits
};

/// The straight line from a float checkpoint to a 4-bit one: per block load, calibrate, solve, check the fold, write.
/// One block of float weights is in memory at a time. Everything but the sink's finish(), which the caller calls.
std::vector<BlockResult> quantize_blocks(const QuantizeFlow& flow);

/// Whether `group` divides every quantized width of the model.
bool group_fits(const ModelSpec& spec, int group);

}  // namespace awq
