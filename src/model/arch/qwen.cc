// Qwen2 and Qwen2.5: the Llama block with biases on q, k and v. Qwen3: without them, with a norm on each head of q and
// k.
#include "model/arch/config.h"

namespace awq {
namespace {

void apply_window(const Config& c, ModelSpec& m) {
  if (c.has("layer_types")) return apply_layer_types(c, m);
  if (!c.flag("use_sliding_window", false)) return;
  const int first = c.has("max_window_layers") ? c.at("max_window_layers").get<int>() : 28;  // transformers' default
  for (int i = std::max(0, first); i < int(m.blocks.size()); ++i)
    m.blocks[size_t(i)].attention.window = c.positive("sliding_window");
}

ModelSpec parse_qwen2(const nlohmann::json& json) {
  const Config c(json);
  BlockSpec b = llama_block(c);
  b.mlp.act = activation_of(c, "hidden_act");
  b.attention.qkv_bias = true;
  ModelSpec m = llama_model(c, json, b);
  apply_window(c, m);
  return m;
}

ModelSpec parse_qwen3(const nlohmann::json& json) {
  const Config c(json);
  BlockSpec b = llama_block(c);
  b.mlp.act = activation_of(c, "hidden_act");
  b.attention.head_norm = HeadNorm::head;
  b.attention.qkv_bias = b.attention.o_bias = c.flag("attention_bias", false);
  ModelSpec m = llama_model(c, json, b);
  apply_window(c, m);
  return m;
}

}  // namespace

extern const Architecture kQwen2, kQwen3;
const Architecture kQwen2{"Qwen2ForCausalLM", "qwen2", parse_qwen2, llama_source};
const Architecture kQwen3{"Qwen3ForCausalLM", "qwen3", parse_qwen3, llama_source};

}  // namespace awq
