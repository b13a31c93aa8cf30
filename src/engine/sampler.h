#pragma once
#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace awq {

struct SamplerOptions {
  double temperature = 0;  // 0: greedy
  int top_k = 0;           // 0: all
  double top_p = 1, min_p = 0;
  double repetition_penalty = 1;  // divides positive and multiplies negative logits of tokens seen before
  uint64_t seed = 0;
};

/// Picks tokens from logits. Filters in this order: penalty, temperature, top-k, min-p, top-p. The same logits and seed
/// give the same tokens with one C library. Not thread-safe.
class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options) : options_(options), rng_(options.seed) {}
  /// logits [vocab] (changed by the penalty); `history` are the tokens so far.
  int32_t sample(std::span<float> logits, std::span<const int32_t> history);

 private:
  struct Choice {
    int32_t token;
    float p;  // not normalised
  };
  void penalize(std::span<float> logits, std::span<const int32_t> history) const;
  std::vector<Choice> kept(std::span<const float> logits) const;
  double uniform() { return double(rng_() >> 11) * 0x1p-53; }

  SamplerOptions options_;
  std::mt19937_64 rng_;
};

}  // namespace awq
