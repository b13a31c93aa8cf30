#pragma once
#include <functional>

#include "formats/format.h"
#include "model/block.h"

namespace awq {

/// "model.layers.3.self_attn.q_proj.weight": how errors and reports name a parameter.
std::string parameter_name(const ModelSpec& spec, int block, Param p);

/// One block as stored: quantized where the checkpoint is.
BlockWeights load_block(const Checkpoint& model, int block);
/// One block in f32, in memory of its own, checked for NaN and Inf. Throws Error if it is quantized already.
BlockWeights load_float_block(const Checkpoint& model, int block);

/// Everything on the device, ready to run. `on_block` is called after each block with how many are done.
Model load_model(Backend& dev, const Checkpoint& model, const std::function<void(int done, int total)>& on_block = {});

}  // namespace awq
