#pragma once
#include "engine/runtime.h"

namespace awq {

/// Tokens of which the last `scored` ones count; at least one stands before them.
struct ScoredTokens {
  std::vector<int32_t> tokens{};
  size_t scored = 0;
  bool cut = false;  // the first are missing
};
struct Likelihood {
  double log_likelihood = 0;
  bool greedy = true;  // each scored token is the likeliest
};

/// A context and its continuation as lm-eval makes tokens of them: white space that ends the context goes to the
/// continuation, both are encoded as one text, and what exceeds the context's own tokens is scored. An empty context is
/// the tokenizer's BOS, or EOS where it has none. Of more than `longest` + 1 tokens the first are cut off.
ScoredTokens encode_pair(const Tokenizer& tokenizer, std::string_view context, std::string_view continuation,
                         size_t longest);
/// A text as its tokens, with what the tokenizer puts around; special tokens that are written in it count.
std::vector<int32_t> encode_prompt(const Tokenizer& tokenizer, std::string_view text);

/// Tokens at the start of all of an item's inputs, which are run once. The last token of each is no input.
size_t shared_tokens(std::span<const ScoredTokens> item);

/// Scores continuations. The choices of an item share the keys and values of the tokens that begin them all: these are
/// run once, then each choice's own tokens take the same place behind them.
class LikelihoodScorer {
 public:
  LikelihoodScorer(Device& device, const Model& model, DType kv) : device_(device), model_(model), kv_(kv) {}
  /// Of each item, of each of its sequences. All of `items` are in memory together: keys and values of the longest
  /// sequence of each.
  std::vector<std::vector<Likelihood>> score(std::span<const std::vector<ScoredTokens>> items) const;

 private:
  Device& device_;
  const Model& model_;
  DType kv_;
};

}  // namespace awq
