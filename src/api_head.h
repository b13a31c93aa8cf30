#pragma once
#include <optional>
#include <string_view>

#include "model/spec.h"
#include "quant/qmatrix.h"

namespace awq {

/// How --quantize-head stores the head of a model whose matrices have groups of `group`; none for 0 bits. Throws Error
/// in the name of `operation` for other bits than 4 and 8 and for a vocabulary that the file format cannot hold.
std::optional<QuantSpec> choose_head(const ModelSpec& spec, int bits, const QuantSpec& of_blocks,
                                     std::string_view operation);

}  // namespace awq
