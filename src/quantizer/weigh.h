#pragma once
#include <filesystem>
#include <functional>

#include "formats/format.h"
#include "io/scratch.h"
#include "quantizer/calibration.h"

namespace awq {

/// How much each calibration token counts in the Gram matrix of a scale group's input: the length of the gradient of
/// log p(next token) by the outputs of the layers that read it, next tokens drawn from the model itself, over its mean.
/// An error of a layer's output moves what the model says by about that much; its square would be the diagonal of the
/// Fisher matrix (docs/numerics.md). Kept in a file: blocks are asked for one at a time.
class TokenWeights {
 public:
  /// Of `tokens` tokens, so many of them (`batch`) weighed together; the file in `folder` is made if it is not there.
  TokenWeights(const std::filesystem::path& folder, const ModelSpec& spec, int64_t tokens, int64_t batch);
  /// Squared gradients of a batch's tokens by the outputs of a block's groups, in the order of scale_groups().
  void put(int64_t batch, int block, std::span<const std::vector<float>> squares);
  /// [tokens] of each site.
  std::map<Site, std::vector<float>> of(int block) const;
  void sync() { file_.sync(); }

 private:
  int64_t row(int64_t batch, int block) const { return batch * rows_ + first_row_[size_t(block)]; }
  const ModelSpec& spec_;
  int64_t tokens_, batch_, rows_ = 0;
  std::vector<int64_t> first_row_;
  ScratchFile file_;
};

/// Whether gradients go back through all blocks of such a model (Tape::knows).
bool can_weigh(const ModelSpec& spec);
/// Tokens that are weighed together: whole sequences, whose states before all blocks take 8 GB of scratch at most.
int64_t weighed_at_once(const ModelSpec& spec, int64_t tokens, int length);
int weigh_steps(const ModelSpec& spec, int64_t tokens, int64_t at_once);
int64_t weigh_scratch_bytes(const ModelSpec& spec, int64_t tokens, int length);

struct WeighFlow {
  const Checkpoint& source;
  Backend& dev;
  Host host;
  HiddenStates hidden;  // that go into block 0; only read
  std::filesystem::path folder;
  int64_t at_once;                                    // tokens, see weighed_at_once()
  std::function<void(int done, int steps)> progress;  // may throw to cancel
  std::function<void(int done)> finished;             // of what counts on it all is on the disk
};
/// Weighs all tokens: forward through the blocks, one in memory at a time, and back. A step is a block one way, or the
/// head; steps before `first` were done by another run. Throws Error if a gradient is not finite. The same weights for
/// any number of threads.
void weigh(const WeighFlow& flow, TokenWeights& weights, int first);

/// What weighing takes, by one block and the head, whose tokens are those of `flow`.
struct WeighCosts {
  StageCost load, forward, back, head_load, head;  // a block's weights both ways; the rest for all tokens
};
WeighCosts try_weigh(const WeighFlow& flow);

}  // namespace awq
