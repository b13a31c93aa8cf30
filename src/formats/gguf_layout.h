#pragma once
// Where GGUF files have a model's parameters.
#include <string>

#include "formats/stored.h"
#include "io/gguf.h"
#include "model/spec.h"
#include "tensor/tensor.h"

namespace awq {

struct GgufFamily;

/// In which of several ways a file has some matrices.
struct GgufLayout {
  bool split_keys = false;  // keys and values of latent attention: apart, each head's keys as [latent, channels], or
                            // one matrix, a head's keys and then its values
  bool fused_qkv = false;   // one matrix: q, then k, then v
  bool fused_gate = false;  // one matrix under up's name: gate, then up
};
GgufLayout gguf_layout(const GgufFamily& family);  // as files are written
GgufLayout gguf_layout(const Gguf& file);

/// The tensors of a file, all experts of a block in one.
StoredTensors gguf_tensors(const GgufFamily& family, const ModelSpec& spec, const GgufLayout& layout);
/// "blk.3.attn_q", without ".weight" or ".bias"; of experts the tensor that holds all. Throws Error for what has no
/// tensor there.
std::string gguf_name(const GgufFamily& family, const ModelSpec& spec, int block, Param p);
/// Of the weight: [experts, rows, columns] of experts, and no rows of a matrix that has one.
Shape gguf_shape(const StoredTensor& t);
Shape gguf_bias_shape(const StoredTensor& t);
/// Files hold the whole gain of a norm, checkpoints of some families the gain less this.
float gguf_gain_offset(const ModelSpec& spec, int block, Param p);

/// Some families' files hold the channels of a head of q and k as pairs that rotate together, (0, d/2), (1, d/2 + 1),
/// ...; Hugging Face's order has the first halves of all pairs first. Of rows of a matrix, or of a bias.
Tensor halves_from_pairs(const Tensor& t, int64_t head_dim);
Tensor pairs_from_halves(const Tensor& t, int64_t head_dim);
bool has_pairs(const GgufFamily& family, Role role);

}  // namespace awq
