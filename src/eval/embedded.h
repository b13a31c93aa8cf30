#pragma once
#include <span>
#include <vector>

#include "model/block.h"

namespace awq {

/// f32 [tokens, stream_width]: what goes into the first block, of sequences of `length` tokens each, one after the
/// other.
Tensor embedded(Backend& dev, const Model& m, std::span<const int32_t> tokens, int length);
std::vector<int32_t> joined(std::span<const std::vector<int32_t>> sequences);

}  // namespace awq
