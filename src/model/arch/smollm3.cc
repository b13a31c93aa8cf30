// SmolLM3: the Llama block, every fourth one without rotation.
#include "model/arch/config.h"

namespace awq {
namespace {

ModelSpec parse_smollm3(const nlohmann::json& json) {
  const Config c(json);
  c.require_absent_or("use_sliding_window", false);
  BlockSpec b = llama_block(c);
  b.mlp.act = activation_of(c, "hidden_act");
  b.mlp.bias = c.flag("mlp_bias", false);
  b.attention.qkv_bias = b.attention.o_bias = c.flag("attention_bias", false);
  ModelSpec m = llama_model(c, json, b, {.tied = true});
  const int every = c.positive("no_rope_layer_interval", 4);
  const nlohmann::json* flags = c.has("no_rope_layers") ? &c.at("no_rope_layers") : nullptr;  // 1: rotated
  for (size_t i = 0; i < m.blocks.size(); ++i)
    if (flags ? flags->at(i).get<int>() == 0 : (i + 1) % size_t(every) == 0) m.blocks[i].attention.rope.dims = 0;
  return m;
}

}  // namespace

extern const Architecture kSmolLm3;
const Architecture kSmolLm3{"SmolLM3ForCausalLM", "smollm3", parse_smollm3, llama_source};

}  // namespace awq
