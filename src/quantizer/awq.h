#pragma once
#include <optional>

#include "quantizer/method.h"
#include "quantizer/refine.h"

namespace awq {

/// What is done beyond scales and ranges.
struct AwqRecipe {
  float first_weight = 1;                  // of the first token of each sequence, in the Gram matrices
  std::optional<Refinement> refinement{};  // of codes and group scales, from codes that make up for errors before them
  bool refined_finalists = false;          // scales are judged with refined codes
};
std::unique_ptr<Method> make_awq(const AwqRecipe& recipe);

}  // namespace awq
