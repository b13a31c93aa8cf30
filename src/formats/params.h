#pragma once
// What a model holds beside its blocks, in the same terms as BlockSpec: block -1 is what is in none of them.
#include <utility>
#include <vector>

#include "model/spec.h"
#include "tensor/tensor.h"

namespace awq {

/// Every parameter in the order of files: embed and what is added to it, the blocks, final_norm, and head unless it is
/// tied.
std::vector<std::pair<int, Param>> params_of(const ModelSpec& spec);
Shape shape_of(const ModelSpec& spec, int block, Param param);
/// The parameter whose values the head has: the embedding where it is tied to it.
Param head_param(const ModelSpec& spec);
bool has_bias(const ModelSpec& spec, int block, Param param);
/// Whether it is one of the blocks' matrices that are quantized: no norm, and no router.
bool is_rounded(Role role);
/// Whether it is a table of rows that are looked up, of which no product is formed.
bool is_table(Role role);
int64_t parameter_count(const ModelSpec& spec);  // biases included
Source source_of(const ModelSpec& spec, int block, Param param);
/// The parameter's name in a Hugging Face folder, less ".weight" or ".bias": "model.layers.3.mlp.up_proj"; of a fused
/// tensor's parts with the part's name, "model.layers.3.self_attn.qkv_proj.q"; of stacked experts as formats of codes
/// have it, "model.layers.3.block_sparse_moe.experts.5.up_proj".
std::string base_name(const ModelSpec& spec, int block, Param param);

}  // namespace awq
