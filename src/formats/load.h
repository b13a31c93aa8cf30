#pragma once
#include <functional>

#include "formats/format.h"
#include "model/block.h"

namespace awq {

/// "model.layers.3.self_attn.q_proj.weight": how errors and reports name a parameter.
std::string parameter_name(const ModelSpec& spec, int block, Param p);

/// One block as it is stored, in memory of its own, checked for NaN and Inf. Throws Error if it is quantized already.
BlockWeights load_float_block(const Checkpoint& model, int block, ThreadPool& pool);

/// A float matrix in bands of f32 that are checked alike as they are read. Reading throws Error too.
Pieces load_float_pieces(const Checkpoint& model, int block, Param p);

/// Tables as they are stored, norms in f32.
Embedding load_embedding(const Checkpoint& model);
/// In front of the head, f32; empty without gains.
NormWeights load_final_norm(const Checkpoint& model);
/// The head's matrix, or the embedding that stands for it.
Pieces load_head_pieces(const Checkpoint& model);

/// One block as it is stored, on the device.
Block load_block(Backend& dev, const Checkpoint& model, int block, const std::function<void()>& on_parameter = {});
/// Everything on the device, ready to run. Parameter by parameter, and of each only a piece a thread is in memory
/// beside what the device keeps. The embedding stays in the file where its type can be read there. `on_parameter` is
/// called after each with how many are done; it may throw.
Model load_model(Backend& dev, const Checkpoint& model,
                 const std::function<void(int done, int total)>& on_parameter = {});
/// The same without blocks, whose place is empty: embedding, final norm and head.
Model load_outer(Backend& dev, const Checkpoint& model);
/// What the matrices of `load_model` will take on the device, head included, in bytes: from shapes and types alone.
int64_t loaded_bytes(const Backend& dev, const Checkpoint& model);
/// "4 bits, groups of 128, 3 layers in floats": how the blocks' matrices are stored; empty for a float model.
std::string quantization_of(const Checkpoint& model);
/// "8 bits, groups of 128" or "BF16": how the head is stored.
std::string head_type(const Checkpoint& model);

}  // namespace awq
