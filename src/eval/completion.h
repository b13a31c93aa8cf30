#pragma once
#include <functional>

#include "engine/runtime.h"

namespace awq {

struct CompletionLimits {
  int tokens = 256;
  std::vector<std::string> stops{};  // the text ends before the first of these
};

/// What the model writes behind each prompt, the likeliest token first, until it ends the text, a stop comes or the
/// limit is reached. Prompts are decoded together; one that has ended leaves the batch.
std::vector<std::string> complete(Device& device, const Model& model, const TextSide& text,
                                  std::span<const std::vector<int32_t>> prompts, const CompletionLimits& limits,
                                  DType kv);

}  // namespace awq
