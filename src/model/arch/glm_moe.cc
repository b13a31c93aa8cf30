// GLM-4.5 and its kin: half of each head rotated, in some a norm on heads of q and k; experts chosen by corrected
// sigmoids and one that every token passes, but for the first blocks.
#include "model/arch/config.h"

namespace awq {
namespace {

ModelSpec parse_glm4_moe(const nlohmann::json& json) {
  const Config c(json);
  BlockSpec b = llama_block(c);
  b.mlp.act = activation_of(c, "hidden_act");
  b.attention.qkv_bias = c.flag("attention_bias", false);
  b.attention.rope = rope_of(json, b.attention.head_dim, 10000.f, 0.5f);
  if (c.flag("use_qk_norm", false)) b.attention.head_norm = HeadNorm::head;
  const BlockSpec dense = b;
  b.experts = corrected_experts(c);
  b.mlp.hidden = c.positive("moe_intermediate_size");
  b.experts->shared_hidden = width_of_shared(c.positive("n_shared_experts", 1), b.mlp.hidden);
  ModelSpec m = llama_model(c, json, b);
  apply_first_dense(c, dense, m);
  return m;
}

}  // namespace

extern const Architecture kGlm4Moe;
const Architecture kGlm4Moe{"Glm4MoeForCausalLM", "glm4moe", parse_glm4_moe, routed_source};

}  // namespace awq
