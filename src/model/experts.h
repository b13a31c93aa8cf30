#pragma once
#include <vector>

#include "model/spec.h"
#include "tensor/tensor.h"

namespace awq {

/// The tokens that an expert gets, ascending, and what multiplies its output for each.
struct Route {
  std::vector<int32_t> rows;
  std::vector<float> weights;
};
/// Of each expert, from the router's output f32 [tokens, count]. Of equal values the first expert's counts as larger.
/// `correction` [count] is for specs that have one.
std::vector<Route> routes_of(const ExpertsSpec& spec, const Tensor& logits, std::span<const float> correction = {});
/// All tokens, multiplied by the sigmoid of the shared router's output f32 [tokens, 1], or by 1 where it is empty.
Route shared_route(const Tensor& logits, int64_t tokens);

}  // namespace awq
