#pragma once
#include <memory>
#include <optional>
#include <variant>

#include "base/parallel.h"
#include "formats/format.h"

namespace awq {

using MatrixType = std::variant<DType, QuantSpec>;
/// 4 bits, groups of `n`, 16-bit scales.
inline MatrixType groups_of(int n) { return QuantSpec{.bits = 4, .group_size = n, .scale_dtype = DType::f16}; }

/// A model of a shape that `config` (a config.json) describes, with random weights and without a file: the blocks'
/// `matrices` quantized, or bf16 values in a float type; embedding in bf16; head in bf16, or as `head` says and of its
/// own; norms of 1. Weights are made when they are asked for, on all threads; the same seed gives the same weights for
/// any number of them. Sizes are such that every layer keeps the magnitude of its input: activations stay finite,
/// logits have a spread of about 1. Borrows the pool. Throws Error if the architecture is unknown or groups do not
/// divide every width.
std::unique_ptr<Checkpoint> random_model(const nlohmann::json& config, const MatrixType& matrices,
                                         const std::optional<QuantSpec>& head, uint64_t seed, ThreadPool& pool);

/// The first `blocks` blocks of a model, with its embedding, last norm and head. Borrows the model.
std::unique_ptr<Checkpoint> first_blocks(const Checkpoint& model, int blocks);

}  // namespace awq
