#pragma once
#include <functional>
#include <map>
#include <span>
#include <vector>

#include "model/block.h"
#include "quantizer/cost.h"
#include "quantizer/gram.h"

namespace awq {

/// What the calibration tokens looked like at the input of one or more linear layers.
struct SiteStatistics {
  int64_t tokens = 0, forced = 0;  // of them, that the router would have sent elsewhere
  std::vector<double> sum_abs;     // [channels]
  std::vector<float> max_abs;      // [channels]
  Gram gram;
  Tensor sample;  // f32 [rows, channels]: some of the inputs, for losses that are not a quadratic form
  std::vector<float> mean_abs() const;
};

/// One block's view of the calibration set.
struct BlockCalibration {
  std::map<Site, SiteStatistics> sites;
  int sample_sequences = 0, sequence_tokens = 0;  // of the sample at site q: whole sequences of this length
  std::vector<uint8_t> sample_counted;            // of its rows, 0 where their output judges nothing; empty: all do
};

struct CalibrationOptions {
  int sample_sequences = 2;  // whole sequences whose attention output judges q, k, v
  int sample_rows = 512;     // tokens, evenly spread, whose MLP output judges gate and up
  /// An expert that fewer tokens went to also gets those of the sample of rows, whatever the router says of them.
  int64_t expert_tokens = 256;
  /// [sequences * length], 0 for tokens that are seen by attention alone and by no statistic; empty: all count. At
  /// least one must.
  std::span<const uint8_t> counted{};
};

/// The calibration tokens between two blocks, wherever they are kept: f32 [tokens, stream_width], sequences of `length`
/// tokens.
struct HiddenStates {
  int64_t tokens = 0;
  int length = 0;
  std::function<Tensor(int64_t begin, int64_t end)> read;     // in memory of its own
  std::function<void(int64_t begin, const Tensor& x)> write;  // what goes into the next block; may be empty
  std::map<Site, std::vector<float>> weights{};  // how much each token counts in a site's Gram matrix; none: all alike
};

/// Throws Error naming the site and its channel if what a block's layer reads is not finite.
void require_finite_input(const Host& host, const Tensor& x, int block, Site site);

/// x [tokens, stream_width], whose rows are written over.
HiddenStates in_memory(Tensor& x, int length);

/// x [sequences * length, stream_width] becomes what goes into the next block.
void run_sequences(Backend& dev, const Block& block, int length, Tensor& x, const Tap& tap = {});

/// Tokens that run through a block at once: whole sequences, at least 512 tokens. It does not depend on how much memory
/// there is, because sums of products do on it.
int64_t tokens_at_once(int length);

/// Runs `block` over all sequences, writes what comes out, and says what was seen on the way. Throws Error naming the
/// site and the block's `index` if an activation is not finite. The same result for any number of threads.
/// `progress(tokens done)` may throw.
BlockCalibration calibrate(Backend& dev, const Host& host, const Block& block, int index, const HiddenStates& hidden,
                           const CalibrationOptions& options, BlockCosts& costs,
                           const std::function<void(int64_t)>& progress = {});

}  // namespace awq
