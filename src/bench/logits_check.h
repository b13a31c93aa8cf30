#pragma once
#include "engine/runtime.h"

namespace awq {

/// A short run of a model on two backends: 16 tokens at once, or 128 where products with many are of another kind, then
/// 4 one by one; all logits.
struct LogitsCheck {
  uint64_t hash = 0, reference_hash = 0;  // FNV-1a of the logits' bytes; backends that round alike have the same
  double difference = 0;                  // largest |logit - reference's|, relative to the reference's largest |logit|
  double bound = 0;                       // what rounding explains
  int blocks = 0, tokens = 0;
  bool agrees() const { return difference <= bound; }  // false for NaN
};

/// How many of a model's first blocks are run on so many tokens, so that portable kernels take seconds.
int check_depth(const ModelSpec& spec, int tokens);

/// Runs the first blocks of `model` on `dev`, where `loaded` is, and on `reference`, which loads them
/// from `model`. Throws Error where the reference's logits are not finite or all the same: then nothing is shown.
LogitsCheck check_logits(Backend& dev, const Model& loaded, Backend& reference, const Checkpoint& model, uint64_t seed);

}  // namespace awq
