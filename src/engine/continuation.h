#pragma once
#include <functional>

#include "engine/runtime.h"

namespace awq {

/// What a model wrote behind a prompt.
struct Continuation {
  std::vector<int32_t> tokens{};  // with the one that ends the text
  bool ended = false;             // by such a token, and not by the limit
  std::span<const int32_t> text_tokens() const { return std::span(tokens).first(tokens.size() - ended); }
};
struct ContinuationOptions {
  int tokens = 128;        // that each has at most
  double temperature = 0;  // 0: the likeliest
  uint64_t seed = 0;       // prompt i is drawn with seed + i, so that equal models draw equal texts
};

/// Of each prompt. All are decoded together until the last has ended: what one is does not depend on when others end.
/// `progress(steps done)` may throw.
std::vector<Continuation> continuations(Device& device, const Model& model, const TextSide& text,
                                        std::span<const std::vector<int32_t>> prompts, const ContinuationOptions& o,
                                        DType kv, const std::function<void(int)>& progress = {});

}  // namespace awq
