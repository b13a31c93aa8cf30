#pragma once
#include <functional>

#include "quantizer/gram.h"

namespace awq {

/// Sums of e C e^T on tiles of bfloat16, several times as fast as f32. C and e are rounded to it: relative errors of
/// 2^-9 of each term, at random. For ranking, not for reporting. Channels are a multiple of 32.
class TileForm {
 public:
  TileForm(const Host& host, const Gram& gram);
  /// `errors(first row, rows, out)` fills rows of e; partial sums are added in row order, so threads do not matter.
  double total(int64_t rows, const std::function<void(int64_t, int64_t, float*)>& errors) const;
  static int64_t bytes_for(int64_t channels) { return 2 * channels * channels; }

 private:
  double of(const float* e, int64_t m) const;

  const Host& host_;
  int64_t channels_;
  Tensor panels_;  // bf16 [channels / 16][channels][16]: the whole square
};

}  // namespace awq
