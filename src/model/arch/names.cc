// Where the families' files have their tensors: names and rows that several of them share.
#include "model/arch/config.h"

namespace awq {

// The last of them are of what one way of building a block has, and are called so wherever it is.
Source named(std::span<const TensorName> names, int block, Param p) {
  static constexpr TensorName kUsualNames[] = {{Role::embed, "model.embed_tokens"},
                                               {Role::final_norm, "model.norm"},
                                               {Role::head, "lm_head"},
                                               {Role::attn_norm, "model.layers.{}.input_layernorm"},
                                               {Role::q, "model.layers.{}.self_attn.q_proj"},
                                               {Role::k, "model.layers.{}.self_attn.k_proj"},
                                               {Role::v, "model.layers.{}.self_attn.v_proj"},
                                               {Role::o, "model.layers.{}.self_attn.o_proj"},
                                               {Role::q_norm, "model.layers.{}.self_attn.q_norm"},
                                               {Role::k_norm, "model.layers.{}.self_attn.k_norm"},
                                               {Role::mlp_norm, "model.layers.{}.post_attention_layernorm"},
                                               {Role::gate, "model.layers.{}.mlp.gate_proj"},
                                               {Role::up, "model.layers.{}.mlp.up_proj"},
                                               {Role::down, "model.layers.{}.mlp.down_proj"},
                                               {Role::beta, ".linear_attn.in_proj_b"},
                                               {Role::decay, ".linear_attn.in_proj_a"},
                                               {Role::conv, ".linear_attn.conv1d"},
                                               {Role::decay_bias, ".linear_attn.dt_bias"},
                                               {Role::decay_rate, ".linear_attn.A_log"},
                                               {Role::o_norm, ".linear_attn.norm"},
                                               {Role::experts_norm, ".pre_feedforward_layernorm_2"},
                                               {Role::dense_post_norm, ".post_feedforward_layernorm_1"},
                                               {Role::experts_post_norm, ".post_feedforward_layernorm_2"},
                                               {Role::router_norm, ".router.scale"},
                                               {Role::experts_weight, ".router.per_expert_scale"},
                                               {Role::own_embed, "model.embed_tokens_per_layer"},
                                               {Role::own_projection, "model.per_layer_model_projection"},
                                               {Role::own_norm, "model.per_layer_projection_norm"},
                                               {Role::own_gate, ".per_layer_input_gate"},
                                               {Role::own_out, ".per_layer_projection"},
                                               {Role::own_post_norm, ".post_per_layer_input_norm"},
                                               {Role::out_scale, ".layer_scalar"}};
  for (const std::span<const TensorName> table : {names, std::span<const TensorName>(kUsualNames)})
    for (const TensorName& n : table)
      if (n.role == p.role)
        return fmt::format(fmt::runtime((n.name.starts_with(".") ? "model.layers.{}" : "") + std::string(n.name)),
                           block, p.expert);
  fail("model", "{} has no tensor in this family", name_of(p.role));
}

RowPattern latent_rows(const AttentionSpec& a, Role role) {
  const int64_t rank = a.latent->kv_rank, k = a.unrotated(), v = a.v_dim();
  if (role == Role::kv_a) return {0, rank, rank + a.rope.dims};
  if (role == Role::k_rope) return {rank, a.rope.dims, rank + a.rope.dims};
  if (role == Role::k) return {0, k, k + v};
  return role == Role::v ? RowPattern{k, v, k + v} : RowPattern{};
}

Source experts_source(const ModelSpec& spec, int block, Param p) {
  static constexpr TensorName kExperts[] = {{Role::router, "model.layers.{}.mlp.gate"},
                                            {Role::shared_router, "model.layers.{}.mlp.shared_expert_gate"},
                                            {Role::gate, "model.layers.{}.mlp.experts.{}.gate_proj"},
                                            {Role::up, "model.layers.{}.mlp.experts.{}.up_proj"},
                                            {Role::down, "model.layers.{}.mlp.experts.{}.down_proj"}};
  static constexpr TensorName kShared[] = {{Role::gate, "model.layers.{}.mlp.shared_expert.gate_proj"},
                                           {Role::up, "model.layers.{}.mlp.shared_expert.up_proj"},
                                           {Role::down, "model.layers.{}.mlp.shared_expert.down_proj"}};
  if (block < 0 || !spec.blocks[size_t(block)].experts) return llama_source(spec, block, p);
  return named(p.expert == kSharedExpert ? std::span<const TensorName>(kShared) : kExperts, block, p);
}

Source routed_source(const ModelSpec& spec, int block, Param p) {
  static constexpr TensorName kLatent[] = {{Role::q_a, "model.layers.{}.self_attn.q_a_proj"},
                                           {Role::q_a_norm, "model.layers.{}.self_attn.q_a_layernorm"},
                                           {Role::q, "model.layers.{}.self_attn.q_b_proj"},
                                           {Role::kv_a, "model.layers.{}.self_attn.kv_a_proj_with_mqa"},
                                           {Role::k_rope, "model.layers.{}.self_attn.kv_a_proj_with_mqa"},
                                           {Role::kv_a_norm, "model.layers.{}.self_attn.kv_a_layernorm"},
                                           {Role::k, "model.layers.{}.self_attn.kv_b_proj"},
                                           {Role::v, "model.layers.{}.self_attn.kv_b_proj"}};
  static constexpr TensorName kShared[] = {{Role::gate, "model.layers.{}.mlp.shared_experts.gate_proj"},
                                           {Role::up, "model.layers.{}.mlp.shared_experts.up_proj"},
                                           {Role::down, "model.layers.{}.mlp.shared_experts.down_proj"}};
  if (p.expert == kSharedExpert) return named(kShared, block, p);
  if (block < 0) return llama_source(spec, block, p);
  const AttentionSpec& a = spec.blocks[size_t(block)].attention;
  if (p.role == Role::router) {
    Source s = experts_source(spec, block, p);
    s.bias = s.name + ".e_score_correction_bias";
    return s;
  }
  const bool direct = p.role == Role::q && a.latent && !a.latent->q_rank;
  if (!a.latent || !in_attention(p.role) || p.role == Role::o || direct) return experts_source(spec, block, p);
  return {named(kLatent, block, p).name, latent_rows(a, p.role)};
}

Source stacked(Source s, const BlockSpec& b, Param p, std::string apart) {
  const int64_t rows = b.shape(p).first, period = s.rows.period ? s.rows.period : rows;
  s.rows = {p.expert * period + s.rows.begin, rows, b.experts.value().count * period};
  s.stack = b.experts->count;
  s.apart = std::move(apart);
  return s;
}

Source experts_in_two(const ModelSpec& spec, int block, Param p, std::string_view of) {
  const BlockSpec& b = spec.blocks[size_t(block)];
  const std::string all = fmt::format("model.layers.{}.{}experts.", block, of);
  Source s(all + (p.role == Role::down ? "down_proj" : "gate_up_proj"));
  if (p.role != Role::down) s.rows = rows_in_order(b.mlp, p.role);
  s = stacked(s, b, p, fmt::format("{}{}.{}_proj", all, p.expert, name_of(p.role)));
  s.weight = s.name;
  return s;
}

Source llama_source(const ModelSpec&, int block, Param p) { return named({}, block, p); }

bool is_qkv(Role role) { return role == Role::q || role == Role::k || role == Role::v; }

RowPattern rows_in_order(const AttentionSpec& a, Role role) {
  const int64_t q = a.q_rows(), kv = a.kv_rows();
  if (role == Role::q) return {0, q, q + 2 * kv};
  return {role == Role::k ? q : q + kv, kv, q + 2 * kv};
}

RowPattern rows_by_kv_head(const AttentionSpec& a, Role role) {
  const int64_t d = a.head_dim, q = a.heads / a.kv_heads * d;
  if (role == Role::q) return {0, q, q + 2 * d};
  return {role == Role::k ? q : q + d, d, q + 2 * d};
}

RowPattern rows_with_gate(const AttentionSpec& a, Role role) {
  const int64_t d = a.head_dim;
  return {role == Role::q ? 0 : d, d, 2 * d};
}

RowPattern rows_in_order(const DeltaSpec& d, Role role) {
  const int64_t k = d.key_rows(), v = d.value_rows();
  return {role == Role::q ? 0 : role == Role::k ? k : 2 * k, role == Role::v ? v : k, 2 * k + v};
}

RowPattern rows_by_key_head(const DeltaSpec& d, Role role) {
  const int64_t share = d.value_heads / d.key_heads, k = d.key_dim, v = share * d.value_dim;
  if (role == Role::beta || role == Role::decay) return {role == Role::beta ? 0 : share, share, 2 * share};
  const int64_t begin = role == Role::q ? 0 : role == Role::k ? k : role == Role::v ? 2 * k : 2 * k + v;
  return {begin, role == Role::q || role == Role::k ? k : v, 2 * (k + v)};
}

RowPattern rows_in_order(const MlpSpec& m, Role role) {
  return {role == Role::gate ? 0 : int64_t(m.hidden), m.hidden, 2 * int64_t(m.hidden)};
}

}  // namespace awq
