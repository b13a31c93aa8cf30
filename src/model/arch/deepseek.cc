// DeepSeek-V2 and V3: multi-head latent attention, and many small experts in groups beside some that every token
// passes, but for the first blocks. V2 chooses by a softmax, V3 by corrected sigmoids.
#include "model/arch/config.h"

namespace awq {
namespace {

ModelSpec deepseek_model(const Config& c, const nlohmann::json& json, const ExpertsSpec& experts) {
  c.require_absent_or("attention_bias", false);
  c.require_absent_or("mlp_bias", false);
  c.require_absent_or("moe_layer_freq", 1);
  BlockSpec b = latent_block(c, json);
  const BlockSpec dense = b;
  b.experts = experts;
  b.mlp.hidden = c.positive("moe_intermediate_size");
  b.experts->shared_hidden = width_of_shared(c.whole("n_shared_experts", 0), b.mlp.hidden);
  ModelSpec m = llama_model(c, json, b);
  apply_first_dense(c, dense, m);
  return m;
}

/// Whether groups limit the choice, and whether anything is normalised, is said by names and flags.
ExpertsSpec deepseek2_experts(const Config& c) {
  c.require_absent_or("norm_topk_prob", false);
  c.require_absent_or("scoring_func", "softmax");
  ExpertsSpec e = experts_of(c, "n_routed_experts");
  e.normalized = false;
  e.scale = c.number("routed_scaling_factor", 1.f);
  if (c.text("topk_method", "greedy") == "greedy") return e;
  c.require_absent_or("topk_method", "group_limited_greedy");
  read_groups(c, 1, e);
  return e;
}

ModelSpec parse_deepseek2(const nlohmann::json& json) {
  const Config c(json);
  ModelSpec m = deepseek_model(c, json, deepseek2_experts(c));
  for (BlockSpec& b : m.blocks) b.attention.rope.interleaved = true;
  return m;
}

ModelSpec parse_deepseek3(const nlohmann::json& json) {
  const Config c(json);
  c.require_absent_or("topk_method", "noaux_tc");
  ModelSpec m = deepseek_model(c, json, corrected_experts(c));
  for (BlockSpec& b : m.blocks) b.attention.rope.interleaved = c.flag("rope_interleave", true);
  return m;
}

}  // namespace

extern const Architecture kDeepSeek2, kDeepSeek3;
const Architecture kDeepSeek2{"DeepseekV2ForCausalLM", "deepseek2", parse_deepseek2, routed_source};
const Architecture kDeepSeek3{"DeepseekV3ForCausalLM", "deepseek2", parse_deepseek3, routed_source};

}  // namespace awq
