// Gemma 4 (text): Gemma 3's norms without the 1 and one more, on heads of v; smaller heads where there is a window.
// Small models have a vector of each token for each block, and last blocks that read the keys of earlier ones; others
// use keys as values, or have experts beside the MLP.
#include <cmath>

#include "model/arch/config.h"

namespace awq {
namespace {

constexpr Spelling kGemma4Spelling{.tied = true};

/// Blocks that see everything have heads of their own size, and, where keys are values, of their own number.
void make_global(const Config& c, const nlohmann::json& json, BlockSpec& b) {
  AttentionSpec& a = b.attention;
  a.head_dim = c.positive("global_head_dim", 512);
  if (c.flag("attention_k_eq_v", false)) {
    a.values = Values::normalised_keys;
    a.kv_heads = c.positive("num_global_key_value_heads", a.kv_heads);
  }
  a.rope = rope_of(rope_of_type(json, "full_attention"), a.head_dim);
  check_sizes(b);
}

void add_experts(const Config& c, BlockSpec& b) {
  ExpertsSpec e = experts_of(c, "num_experts", "top_k_experts");
  e.shared_hidden = b.mlp.hidden;
  e.apart = e.weighted = true;
  e.router_scale = 1 / std::sqrt(float(b.dim));
  b.mlp.hidden = c.positive(c.has("moe_intermediate_size") ? "moe_intermediate_size" : "expert_intermediate_size");
  b.experts = e;
}

ModelSpec parse_gemma4(const nlohmann::json& json) {
  const Config c(json);
  if (c.text("use_bidirectional_attention", "vision") != "vision")  // of pictures, which are not run
    c.require_absent_or("use_bidirectional_attention", nullptr);
  c.require_absent_or("per_layer_config", nullptr);
  c.at("rope_parameters");  // its defaults are not these of other families
  BlockSpec b = llama_block(c, kGemma4Spelling);
  b.placement = NormPlacement::both;
  b.mlp.act = activation_of(c, "hidden_activation");
  b.out_scaled = true;
  AttentionSpec& a = b.attention;
  a.head_norm = HeadNorm::head;
  a.values = Values::normalised;
  a.qkv_bias = a.o_bias = c.flag("attention_bias", false);
  a.query_scale = 1;
  a.rope = rope_of(rope_of_type(json, "sliding_attention"), a.head_dim);
  if (c.flag("enable_moe_block", false)) add_experts(c, b);
  ModelSpec m = model_without_rope(c, b, kGemma4Spelling);
  m.embed_scale = std::sqrt(float(m.dim));
  m.logit_cap = c.number("final_logit_softcapping", 0.f);
  apply_layer_types(c, m);
  if (m.blocks.back().attention.window)
    fail("config", "config.json: the last of \"layer_types\" should be full_attention, which programs make of it");
  for (BlockSpec& block : m.blocks)
    if (!block.attention.window) make_global(c, json, block);
  share_last_keys(c, m);
  apply_own_inputs(c, json, m);
  return m;
}

constexpr TensorName kGemma4Names[] = {{Role::attn_post_norm, ".post_attention_layernorm"},
                                       {Role::mlp_norm, ".pre_feedforward_layernorm"},
                                       {Role::mlp_post_norm, ".post_feedforward_layernorm"},
                                       {Role::router, ".router.proj"}};

Source gemma4_source(const ModelSpec& m, int block, Param p) {
  if (block >= 0 && m.blocks[size_t(block)].is_routed(p)) return experts_in_two(m, block, p, "");
  Source s = named(kGemma4Names, block, p);
  if (p.role == Role::router_norm || p.role == Role::experts_weight || p.role == Role::out_scale) s.weight = s.name;
  return s;
}

}  // namespace

extern const Architecture kGemma4;
const Architecture kGemma4{"Gemma4ForCausalLM", "", parse_gemma4, gemma4_source};

}  // namespace awq
