#pragma once
#include <string>

#include "base/parallel.h"
#include "formats/format.h"

namespace awq {

/// How two checkpoints of one model differ. Floats are compared as values, whatever their types.
struct Difference {
  bool same_codes = true;  // codes, scales, zero points or offsets, and the order of columns
  double largest = 0;      // |a - b| of a weight
  double sum = 0;          // of |a - b| over all weights
  int64_t weights = 0;
  std::string where;  // "model.layers.3.mlp.up_proj, row 5, column 17": of the largest
  bool exact() const { return same_codes && largest == 0; }
  double mean() const { return weights ? sum / double(weights) : 0; }
};

/// Reads every parameter of both, a matrix of each at a time. Throws Error where the models have other shapes.
Difference compare(const Checkpoint& a, const Checkpoint& b, ThreadPool& pool);

}  // namespace awq
