#pragma once
#include <memory>
#include <span>
#include <string_view>

#include "quantizer/method.h"

namespace awq {

/// The search that another program calls AWQ: its formula, grid, tie rule, ranges and types. docs/numerics.md has where
/// they differ, and what of them is not reproduced.
struct Variant {
  std::string_view name;  // as accepted by --variant
  bool half;              // computes in f16 whatever the checkpoint's type is; else in that
  bool weight_term;       // m^r / (w^(1-r) + 1e-4) instead of m^r
  bool identity;          // "no scaling" comes before the grid
  int steps, points;      // ratios i / steps for i < points
  bool clips;
  bool extends;  // each range to zero: compressed-tensors' rule
};
std::span<const Variant> variants();

/// The method "awq" of that name; "ours" is the product's own. Throws Error, listing the names.
std::unique_ptr<Method> make_awq_variant(std::string_view name);

}  // namespace awq
