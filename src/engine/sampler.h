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
  double typical_p = 1;           // the tokens whose surprise is nearest to the mean one, up to this share
  double repetition_penalty = 1;  // divides positive and multiplies negative logits of tokens seen before
  double presence_penalty = 0;    // taken off the logit of a token that the answer has
  double frequency_penalty = 0;   // the same, as often as it has it
  std::vector<std::pair<int32_t, float>> bias{};  // added to a token's logit
  uint64_t seed = 0;
};

/// Picks tokens from logits. Filters in this order: bias, penalties, temperature, top-k, min-p, typical-p, top-p. The
/// same logits and seed give the same tokens with one C library. Not thread-safe.
class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options) : options_(options), rng_(options.seed) {}
  /// logits [vocab] (changed by biases and penalties); `history` are the tokens so far, the first `prompt` of them not
  /// of the answer.
  int32_t sample(std::span<float> logits, std::span<const int32_t> history, size_t prompt);

 private:
  struct Choice {
    int32_t token;
    float p;  // not normalised
  };
  void penalize(std::span<float> logits, std::span<const int32_t> history, size_t prompt) const;
  void keep_typical(std::vector<Choice>& all) const;
  std::vector<Choice> kept(std::span<const float> logits) const;
  double uniform() { return double(rng_() >> 11) * 0x1p-53; }

  SamplerOptions options_;
  std::mt19937_64 rng_;
};

}  // namespace awq
