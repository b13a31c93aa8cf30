#pragma once
#include <functional>

#include "engine/runtime.h"

namespace awq {

/// The token with the largest logit, the first of equals.
int32_t likeliest(std::span<const float> logits);

/// What follows each prompt, the likeliest token first, until the model ends the text or there are `tokens`. The
/// prompts are decoded together. `progress(steps done)` may throw.
std::vector<std::vector<int32_t>> greedy_answers(Device& device, const Model& model, const TextSide& text,
                                                 std::span<const std::vector<int32_t>> prompts, int tokens,
                                                 const std::function<void(int)>& progress = {});

}  // namespace awq
