// Granite: the Llama block with constants that scale embeddings, scores, residuals and logits.
#include <cmath>

#include "model/arch/config.h"

namespace awq {
namespace {

ModelSpec parse_granite(const nlohmann::json& json) {
  const Config c(json);
  BlockSpec b = llama_block(c);
  b.mlp.act = activation_of(c, "hidden_act");
  b.mlp.bias = c.flag("mlp_bias", false);
  b.attention.qkv_bias = b.attention.o_bias = c.flag("attention_bias", false);
  b.attention.query_scale = c.number("attention_multiplier", 1.f);
  b.residual_scale = c.number("residual_multiplier", 1.f);
  ModelSpec m = llama_model(c, json, b);
  m.embed_scale = c.number("embedding_multiplier", 1.f);
  m.head_input_scale = 1.f / c.number("logits_scaling", 1.f);
  if (!std::isfinite(m.head_input_scale)) fail("config", "config.json: \"logits_scaling\" should not be 0");
  return m;
}

}  // namespace

extern const Architecture kGranite;
const Architecture kGranite{"GraniteForCausalLM", "granite", parse_granite, llama_source};

}  // namespace awq
