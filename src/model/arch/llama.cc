// Llama 2 and 3, SmolLM2 and everything that calls itself Llama; Mistral is the same block with one window for all.
#include "model/arch/config.h"

namespace awq {
namespace {

ModelSpec parse_llama(const nlohmann::json& json) {
  const Config c(json);
  BlockSpec b = llama_block(c);
  b.mlp.act = activation_of(c, "hidden_act");
  b.attention.qkv_bias = b.attention.o_bias = c.flag("attention_bias", false);
  b.mlp.bias = c.flag("mlp_bias", false);
  return llama_model(c, json, b);
}

ModelSpec parse_mistral(const nlohmann::json& json) {
  const Config c(json);
  BlockSpec b = llama_block(c);
  b.mlp.act = activation_of(c, "hidden_act");
  if (c.has("sliding_window")) b.attention.window = c.positive("sliding_window");
  return llama_model(c, json, b);
}

// Ministral 8B: windows by layer.
ModelSpec parse_ministral(const nlohmann::json& json) {
  const Config c(json);
  if (!c.has("layer_types")) return parse_mistral(json);
  BlockSpec b = llama_block(c);
  b.mlp.act = activation_of(c, "hidden_act");
  ModelSpec m = llama_model(c, json, b);
  apply_layer_types(c, m);
  return m;
}

}  // namespace

extern const Architecture kLlama, kMistral, kMinistral;
const Architecture kLlama{"LlamaForCausalLM", "llama", parse_llama, llama_source};
const Architecture kMistral{"MistralForCausalLM", "llama", parse_mistral, llama_source};
const Architecture kMinistral{"MinistralForCausalLM", "llama", parse_ministral, llama_source};

}  // namespace awq
