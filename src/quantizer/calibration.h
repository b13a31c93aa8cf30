#pragma once
#include <map>
#include <span>
#include <vector>

#include "base/parallel.h"
#include "kernels/kernels.h"
#include "model/block.h"

namespace awq {

/// Threads and kernels for the quantizer's own arithmetic.
struct Host {
  ThreadPool& pool;
  const kernels::KernelSet& kernels;
};

/// What the calibration tokens looked like at the input of one or more linear layers.
struct SiteStatistics {
  int64_t tokens = 0;
  std::vector<double> sum_abs;  // [channels]
  Tensor gram;    // f32 [channels, channels] sum of x^T x over all tokens; only the upper triangle is kept
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
  int sample_sequences = 4;  // whole sequences whose attention output judges q, k, v
  int sample_rows = 1024;    // tokens, evenly spread, whose MLP output judges gate and up
  /// [sequences * length], 0 for tokens that are seen by attention alone and by no statistic; empty: all count. At
  /// least one must.
  std::span<const uint8_t> counted{};
};

/// Runs `block` over all sequences, which are `length` tokens each: hidden f32 [sequences * length, dim] becomes the
/// block's output, and the result says what was seen on the way. Throws Error naming the site and the
/// block's `index` if an activation is not finite. The same result for any number of threads.
BlockCalibration calibrate(Backend& dev, const Host& host, const Block& block, int index, Tensor& hidden, int length,
                           const CalibrationOptions& options);

/// gram += x^T x, upper triangle. x f32 [tokens, channels]
void add_gram(const Host& host, const Tensor& x, Tensor& gram);

}  // namespace awq
