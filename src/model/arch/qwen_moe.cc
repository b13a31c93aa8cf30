// Qwen2-MoE and Qwen1.5-MoE: Qwen2's block with experts and one that every token passes, weighted by a gate. Qwen3-MoE:
// Qwen3's with experts. Some blocks may have one MLP.
#include "model/arch/config.h"

namespace awq {
namespace {

BlockSpec qwen_moe_block(const Config& c) {
  c.require_absent_or("use_sliding_window", false);
  BlockSpec b = llama_block(c);
  b.mlp.act = activation_of(c, "hidden_act");
  b.mlp.hidden = c.positive("moe_intermediate_size");
  b.experts = experts_of(c);
  b.experts->normalized = c.flag("norm_topk_prob", false);
  return b;
}

ModelSpec qwen_moe_model(const Config& c, const nlohmann::json& json, const BlockSpec& b) {
  ModelSpec m = llama_model(c, json, b);
  if (c.has("layer_types")) apply_layer_types(c, m);
  apply_dense_blocks(c, m);
  return m;
}

ModelSpec parse_qwen2_moe(const nlohmann::json& json) {
  const Config c(json);
  BlockSpec b = qwen_moe_block(c);
  b.attention.qkv_bias = c.flag("qkv_bias", true);
  b.experts->shared_hidden = c.positive("shared_expert_intermediate_size");
  b.experts->shared_gate = true;
  return qwen_moe_model(c, json, b);
}

ModelSpec parse_qwen3_moe(const nlohmann::json& json) {
  const Config c(json);
  BlockSpec b = qwen_moe_block(c);
  b.attention.head_norm = HeadNorm::head;
  b.attention.qkv_bias = b.attention.o_bias = c.flag("attention_bias", false);
  return qwen_moe_model(c, json, b);
}

}  // namespace

extern const Architecture kQwen2Moe, kQwen3Moe;
const Architecture kQwen2Moe{"Qwen2MoeForCausalLM", "qwen2moe", parse_qwen2_moe, experts_source};
const Architecture kQwen3Moe{"Qwen3MoeForCausalLM", "qwen3moe", parse_qwen3_moe, experts_source};

}  // namespace awq
