// MiniCPM 1, 2 and 4: the Llama block with constants that scale embeddings, residuals and the head's input. MiniCPM 3:
// the same with multi-head latent attention.
#include <cmath>

#include "model/arch/config.h"

namespace awq {
namespace {

ModelSpec minicpm_model(const Config& c, const nlohmann::json& json, BlockSpec b) {
  b.residual_scale = c.number("scale_depth", 1.f) / std::sqrt(float(c.positive("num_hidden_layers")));
  ModelSpec m = llama_model(c, json, b, {.tied = true});
  m.embed_scale = c.number("scale_emb", 1.f);
  m.head_input_scale = c.number("dim_model_base", float(m.dim)) / float(m.dim);
  return m;
}

ModelSpec parse_minicpm(const nlohmann::json& json) {
  const Config c(json);
  c.require_absent_or("num_experts", 0);
  BlockSpec b = llama_block(c);
  b.mlp.act = activation_of(c, "hidden_act");
  b.attention.qkv_bias = b.attention.o_bias = c.flag("attention_bias", false);
  return minicpm_model(c, json, b);
}

ModelSpec parse_minicpm3(const nlohmann::json& json) {
  const Config c(json);
  c.require_absent_or("attention_bias", false);
  return minicpm_model(c, json, latent_block(c, json));
}

}  // namespace

extern const Architecture kMiniCpm, kMiniCpm3;
const Architecture kMiniCpm{"MiniCPMForCausalLM", "minicpm", parse_minicpm, llama_source};
const Architecture kMiniCpm3{"MiniCPM3ForCausalLM", "minicpm3", parse_minicpm3, routed_source};

}  // namespace awq
