#pragma once
#include <memory>
#include <optional>

#include "base/parallel.h"
#include "formats/format.h"

namespace awq {

/// A model of a shape that `config` (a config.json) describes, with random weights and without a file: matrices of the
/// blocks in 4 bits, groups of `group`; embedding in bf16; head in bf16, or as `head` says and of its own; norms of 1.
/// Weights are made when they are asked for, on all threads; the same seed gives the same weights for any number of
/// them. Sizes are such that every layer keeps the magnitude of its input: activations stay finite, logits have a
/// spread of about 1. Borrows the pool. Throws Error if the architecture is unknown or `group` does not divide every
/// width.
std::unique_ptr<Checkpoint> random_model(const nlohmann::json& config, int group, const std::optional<QuantSpec>& head,
                                         uint64_t seed, ThreadPool& pool);

/// The first `blocks` blocks of a model, with its embedding, last norm and head. Borrows the model.
std::unique_ptr<Checkpoint> first_blocks(const Checkpoint& model, int blocks);

}  // namespace awq
