#pragma once
// Where GGUF files have a model's parameters.
#include <string>

#include "model/spec.h"
#include "tensor/tensor.h"

namespace awq {

/// "blk.3.attn_q", without ".weight" or ".bias"; of experts the tensor that holds all. Throws Error for what has no
/// tensor there.
std::string gguf_name(const ModelSpec& spec, int block, Param p);
/// Of the weight: [experts, rows, columns] of experts, and no rows of a matrix that has one.
Shape gguf_shape(const ModelSpec& spec, int block, Param p);
/// Whether it is one of many in its tensor.
bool is_stacked(const ModelSpec& spec, int block, Param p);

/// Llama's and Granite's files hold the channels of a head of q and k as pairs that rotate together, (0, d/2), (1, d/2
/// + 1), ...; Hugging Face's order has the first halves of all pairs first. Of rows of a matrix, or of a bias.
Tensor halves_from_pairs(const Tensor& t, int64_t head_dim);
Tensor pairs_from_halves(const Tensor& t, int64_t head_dim);
bool has_pairs(std::string_view gguf_architecture, Role role);

}  // namespace awq
