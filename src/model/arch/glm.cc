// GLM-4 9B as transformers has it: neighbours of the first half of each head rotated, gate and up in one tensor.
// GLM-4-0414: norms after attention and MLP too.
#include "model/arch/config.h"

namespace awq {
namespace {

BlockSpec glm_block(const Config& c, const nlohmann::json& json) {
  BlockSpec b = llama_block(c);
  b.mlp.act = activation_of(c, "hidden_act");
  b.attention.qkv_bias = c.flag("attention_bias", true);
  b.attention.rope = rope_of(json, b.attention.head_dim, 10000.f, 0.5f);
  b.attention.rope.interleaved = true;
  return b;
}

ModelSpec parse_glm(const nlohmann::json& json) {
  const Config c(json);
  return llama_model(c, json, glm_block(c, json));
}

ModelSpec parse_glm4(const nlohmann::json& json) {
  const Config c(json);
  BlockSpec b = glm_block(c, json);
  b.placement = NormPlacement::both;
  return llama_model(c, json, b);
}

constexpr TensorName kGlmNames[] = {{Role::attn_post_norm, "model.layers.{}.post_self_attn_layernorm"},
                                    {Role::mlp_post_norm, "model.layers.{}.post_mlp_layernorm"}};

Source glm_source(const ModelSpec& m, int block, Param p) {
  if (p.role == Role::gate || p.role == Role::up)
    return {fmt::format("model.layers.{}.mlp.gate_up_proj", block), rows_in_order(m.blocks[size_t(block)].mlp, p.role)};
  return named(kGlmNames, block, p);
}

}  // namespace

extern const Architecture kGlm, kGlm4;
const Architecture kGlm{"GlmForCausalLM", "chatglm", parse_glm, glm_source};
const Architecture kGlm4{"Glm4ForCausalLM", "glm4", parse_glm4, glm_source};

}  // namespace awq
