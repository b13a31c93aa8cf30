#pragma once
#include <functional>
#include <optional>
#include <set>

#include "formats/format.h"
#include "quantizer/hidden_files.h"
#include "quantizer/method.h"
#include "quantizer/weigh.h"

namespace awq {

/// All that is known of a finished block.
struct BlockResult {
  int block = 0;
  Solution solution;
  double fold_error = 0;  // relative change of the float block's output by folding
  BlockCosts costs;
  double mean_error() const;  // of its quantized layers
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
  /// Between blocks; null for a method that needs no calibration.
  HiddenFiles* hidden;
  CalibrationOptions calibration;
  Backend& dev;
  Host host;
  std::function<void(const QuantizeProgress&)> progress;  // may throw to cancel
  /// A block has been put into the sink. Called on another thread, while the next block is loaded; the next block's
  /// result never comes before this one's call has returned.
  std::function<void(const BlockResult&)> finished;
  std::set<std::pair<int, Param>> kept{};  // matrices that are stored in 16 bits
  const TokenWeights* weights = nullptr;   // null: all tokens count alike
};

/// The straight line from a float checkpoint to a 4-bit one: the embedding, if `first` is 0; per block load, calibrate,
/// solve, check the fold, write; what follows the blocks. One block of weights is in memory at a time, and the hidden
/// states of one batch. Everything but the sink's finish(), which the caller calls. Blocks before `first` are in the
/// sink already and hidden.input(first) holds what goes into that block.
void quantize_blocks(const QuantizeFlow& flow, int first);

/// Computes a block and writes nothing.
BlockResult try_block(const QuantizeFlow& flow, int block);

/// What goes into the first block, of sequences of one length.
void embed_tokens(Backend& dev, const Checkpoint& source, std::span<const std::vector<int32_t>> sequences,
                  HiddenFiles& hidden);

/// Whether `group` divides every quantized width of the model.
bool group_fits(const ModelSpec& spec, int group);

}  // namespace awq
