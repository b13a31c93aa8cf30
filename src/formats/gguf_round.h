#pragma once
#include <string>

#include "quant/qmatrix.h"

namespace awq {

/// A float matrix rounded as ggml's reference functions do for Q4_0, Q4_1 and Q8_0, whose bytes it gives: blocks of 32
/// columns. Throws Error, naming the matrix, if a value is not finite, or a scale not in F16.
QMatrix ggml_rounded(const Tensor& matrix, std::string_view type, const std::string& name);

}  // namespace awq
