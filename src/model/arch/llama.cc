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

}  // namespace

extern const Architecture kLlama, kMistral;
const Architecture kLlama{"LlamaForCausalLM", "llama", parse_llama, llama_source};
const Architecture kMistral{"MistralForCausalLM", "llama", parse_mistral, llama_source};

}  // namespace awq
