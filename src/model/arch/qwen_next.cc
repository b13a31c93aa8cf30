// Qwen3-Next: gated delta nets, and every so many blocks attention with a gate and partial rope; experts and a shared
// one; norms of 1 + w. Qwen3.5 is the same, with one MLP or with experts, and has the delta net's inputs apart.
#include "model/arch/config.h"

namespace awq {
namespace {

ModelSpec next_model(const Config& c, const nlohmann::json& json, BlockSpec b) {
  c.require_absent_or("attn_output_gate", true);
  b.mlp.act = activation_of(c, "hidden_act");
  b.norm.gain_offset = 1.f;
  AttentionSpec& a = b.attention;
  a.head_norm = HeadNorm::head;
  a.gated = true;
  a.qkv_bias = a.o_bias = c.flag("attention_bias", false);
  a.rope = rope_of(json, a.head_dim, 10000.f, 0.25f);
  ModelSpec m = llama_model(c, json, b);
  apply_deltas(c, m);
  m.unused.push_back({"mtp.", kFurtherTokens});
  return m;
}

ModelSpec parse_qwen3_next(const nlohmann::json& json) {
  const Config c(json);
  BlockSpec b = llama_block(c, {.hidden = "moe_intermediate_size"});
  b.experts = experts_of(c);
  b.experts->normalized = c.flag("norm_topk_prob", true);
  b.experts->shared_hidden = c.positive("shared_expert_intermediate_size");
  b.experts->shared_gate = true;
  ModelSpec m = next_model(c, json, b);
  apply_dense_blocks(c, m);
  return m;
}

ModelSpec parse_qwen3_5(const nlohmann::json& json) {
  const Config c(json);
  return next_model(c, json, llama_block(c));
}

constexpr TensorName kDeltaNames[] = {{Role::q, ".linear_attn.in_proj_qkv"},
                                      {Role::k, ".linear_attn.in_proj_qkv"},
                                      {Role::v, ".linear_attn.in_proj_qkv"},
                                      {Role::o_gate, ".linear_attn.in_proj_z"},
                                      {Role::o, ".linear_attn.out_proj"}};
constexpr TensorName kNextNames[] = {
    {Role::q, ".linear_attn.in_proj_qkvz"},  {Role::k, ".linear_attn.in_proj_qkvz"},
    {Role::v, ".linear_attn.in_proj_qkvz"},  {Role::o_gate, ".linear_attn.in_proj_qkvz"},
    {Role::beta, ".linear_attn.in_proj_ba"}, {Role::decay, ".linear_attn.in_proj_ba"}};

Source qwen3_5_source(const ModelSpec& m, int block, Param p) {
  if (block < 0 || !in_attention(p.role)) return experts_source(m, block, p);
  const BlockSpec& b = m.blocks[size_t(block)];
  if (!b.delta && (p.role == Role::q || p.role == Role::o_gate))
    return {named({}, block, {Role::q}).name, rows_with_gate(b.attention, p.role)};
  Source s = named(b.delta ? std::span<const TensorName>(kDeltaNames) : std::span<const TensorName>(), block, p);
  if (b.delta && is_qkv(p.role)) s.rows = rows_in_order(*b.delta, p.role);
  if (p.role == Role::decay_bias || p.role == Role::decay_rate) s.weight = s.name;
  return s;
}

Source qwen3_5_moe_source(const ModelSpec& m, int block, Param p) {
  const bool routed = block >= 0 && m.blocks[size_t(block)].is_routed(p);
  return routed ? experts_in_two(m, block, p, "mlp.") : qwen3_5_source(m, block, p);
}

Source qwen3_next_source(const ModelSpec& m, int block, Param p) {
  const auto* fused = std::ranges::find(kNextNames, p.role, &TensorName::role);
  if (block < 0 || !m.blocks[size_t(block)].delta || fused == std::end(kNextNames)) return qwen3_5_source(m, block, p);
  return {named(kNextNames, block, p).name, rows_by_key_head(*m.blocks[size_t(block)].delta, p.role)};
}

}  // namespace

extern const Architecture kQwen3Next, kQwen35, kQwen35Moe;
const Architecture kQwen3Next{"Qwen3NextForCausalLM", "", parse_qwen3_next, qwen3_next_source};
const Architecture kQwen35{"Qwen3_5ForCausalLM", "", parse_qwen3_5, qwen3_5_source};
const Architecture kQwen35Moe{"Qwen3_5MoeForCausalLM", "", parse_qwen3_next, qwen3_5_moe_source};

}  // namespace awq
