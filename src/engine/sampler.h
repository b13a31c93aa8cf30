#pragma once
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "kernels/registry.h"

namespace awq {

struct SamplerOptions {
  double temperature = 0;  // 0: greedy
  int top_k = 0;           // 0: all
  double top_p = 1, min_p = 0;
  double typical_p = 1;           // the tokens whose surprise is nearest to the mean one, up to this share
  double repetition_penalty = 1;  // divides positive and multiplies negative logits of tokens seen before
  double presence_penalty = 0;    // taken off the logit of a token that the answer has
  double frequency_penalty = 0;   // the same, as often as it has it
  std::vector<std::pair<int32_t, float>> bias{};  // added to a token's logit
  uint64_t seed = 0;
};

/// The token with the largest logit, the first of equals.
int32_t likeliest(std::span<const float> logits);

/// Picks tokens from logits. Filters in this order: bias, penalties, temperature, top-k, min-p, typical-p, top-p. The
/// same logits and seed give the same tokens, with typical-p where the C library is the same too. Not thread-safe.
class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options);
  /// logits [vocab] (changed by biases and penalties); `history` are the tokens so far, the first `prompt` of them not
  /// of the answer.
  int32_t sample(std::span<float> logits, std::span<const int32_t> history, size_t prompt);
  /// How many of the largest logits decide alone; 0: any may.
  int candidates() const;
  /// The same of these alone, in falling order.
  int32_t sample_among(std::span<const int32_t> tokens, std::span<float> logits);

 private:
  struct Choice {
    int32_t token;
    float p;  // not normalised once some are left out
  };
  void penalize(std::span<float> logits, std::span<const int32_t> history, size_t prompt) const;
  bool filters() const;
  std::vector<float> probabilities(std::span<const float> logits) const;
  std::vector<Choice> kept(std::span<const float> p) const;
  void keep_typical(std::vector<Choice>& all) const;
  int32_t pick(std::span<const float> p, double at) const;
  [[noreturn]] void fail_empty() const;
  double uniform() { return double(rng_() >> 11) * 0x1p-53; }

  const kernels::KernelSet& kernels_;
  SamplerOptions options_;
  std::mt19937_64 rng_;
};

}  // namespace awq
