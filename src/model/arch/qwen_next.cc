// Qwen3-Next: gated delta nets, and every so many blocks attention with a gate and partial rope; experts and a shared
// one; norms of 1 + w. Qwen3.5 is the same with one MLP, and has the delta net's inputs apart.
#include "model/arch/config.h"

namespace awq {
namespace {

DeltaSpec delta_of(const Config& c, float eps) {
  c.require_absent_or("hidden_act", "silu");  // the convolution's too
  const DeltaSpec d{.key_heads = c.positive("linear_num_key_heads"),
                    .value_heads = c.positive("linear_num_value_heads"),
                    .key_dim = c.positive("linear_key_head_dim"),
                    .value_dim = c.positive("linear_value_head_dim"),
                    .kernel = c.positive("linear_conv_kernel_dim"),
                    .norm = {.eps = eps}};
  if (d.kernel < 2) fail("config", "config.json: linear_conv_kernel_dim should be at least 2, but is {}", d.kernel);
  if (d.value_heads % d.key_heads)
    fail("config", "config.json: linear_num_value_heads ({}) is no multiple of linear_num_key_heads ({})",
         d.value_heads, d.key_heads);
  return d;
}

bool is_delta(const Config& c, size_t block) {
  if (!c.has("layer_types")) return (block + 1) % size_t(c.positive("full_attention_interval", 4)) != 0;
  const nlohmann::json& type = c.at("layer_types").at(block);
  if (type != "linear_attention" && type != "full_attention")
    fail("config", "config.json: \"layer_types\" should be linear_attention or full_attention, but has {}",
         type.dump());
  return type == "linear_attention";
}

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
  for (size_t i = 0; i < m.blocks.size(); ++i)
    if (is_delta(c, i)) m.blocks[i].attention = {}, m.blocks[i].delta = delta_of(c, b.norm.eps);
  m.unused.emplace_back("mtp.");
  return m;
}

ModelSpec parse_qwen3_next(const nlohmann::json& json) {
  const Config c(json);
  BlockSpec b = llama_block(c);
  b.mlp.hidden = c.positive("moe_intermediate_size");
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

/// Of each key head its q and k, and then v and gate, or beta and decay, of the value heads that share it.
RowPattern rows_by_key_head(const DeltaSpec& d, Role role) {
  const int64_t share = d.value_heads / d.key_heads, k = d.key_dim, v = share * d.value_dim;
  if (role == Role::beta || role == Role::decay) return {role == Role::beta ? 0 : share, share, 2 * share};
  const int64_t begin = role == Role::q ? 0 : role == Role::k ? k : role == Role::v ? 2 * k : 2 * k + v;
  return {begin, role == Role::q || role == Role::k ? k : v, 2 * (k + v)};
}

RowPattern rows_in_order(const DeltaSpec& d, Role role) {
  const int64_t k = d.key_rows(), v = d.value_rows();
  return {role == Role::q ? 0 : role == Role::k ? k : 2 * k, role == Role::v ? v : k, 2 * k + v};
}

constexpr TensorName kDeltaNames[] = {
    {Role::q, "model.layers.{}.linear_attn.in_proj_qkv"},    {Role::k, "model.layers.{}.linear_attn.in_proj_qkv"},
    {Role::v, "model.layers.{}.linear_attn.in_proj_qkv"},    {Role::o_gate, "model.layers.{}.linear_attn.in_proj_z"},
    {Role::beta, "model.layers.{}.linear_attn.in_proj_b"},   {Role::decay, "model.layers.{}.linear_attn.in_proj_a"},
    {Role::conv, "model.layers.{}.linear_attn.conv1d"},      {Role::decay_bias, "model.layers.{}.linear_attn.dt_bias"},
    {Role::decay_rate, "model.layers.{}.linear_attn.A_log"}, {Role::o_norm, "model.layers.{}.linear_attn.norm"},
    {Role::o, "model.layers.{}.linear_attn.out_proj"}};
constexpr TensorName kNextNames[] = {
    {Role::q, "model.layers.{}.linear_attn.in_proj_qkvz"},  {Role::k, "model.layers.{}.linear_attn.in_proj_qkvz"},
    {Role::v, "model.layers.{}.linear_attn.in_proj_qkvz"},  {Role::o_gate, "model.layers.{}.linear_attn.in_proj_qkvz"},
    {Role::beta, "model.layers.{}.linear_attn.in_proj_ba"}, {Role::decay, "model.layers.{}.linear_attn.in_proj_ba"}};

Source delta_source(const ModelSpec& m, int block, Param p) {
  const BlockSpec& b = m.blocks[size_t(block)];
  if (!b.delta) {  // a head's queries, then its gate
    const int64_t d = b.attention.head_dim;
    const Source q = named({}, block, {Role::q});
    return p.role == Role::q ? Source(q.name, {0, d, 2 * d}) : Source(q.name, {d, d, 2 * d});
  }
  Source s = named(kDeltaNames, block, p);
  if (is_qkv(p.role)) s.rows = rows_in_order(*b.delta, p.role);
  if (p.role == Role::decay_bias || p.role == Role::decay_rate) s.weight = s.name;
  return s;
}

bool is_mixers(const ModelSpec& m, int block, Param p) {
  if (block < 0 || !in_attention(p.role)) return false;
  return m.blocks[size_t(block)].delta || p.role == Role::q || p.role == Role::o_gate;
}

Source qwen3_5_source(const ModelSpec& m, int block, Param p) {
  return is_mixers(m, block, p) ? delta_source(m, block, p) : experts_source(m, block, p);
}

Source qwen3_next_source(const ModelSpec& m, int block, Param p) {
  if (!is_mixers(m, block, p) || !m.blocks[size_t(block)].delta) return qwen3_5_source(m, block, p);
  const auto* fused = std::ranges::find(kNextNames, p.role, &TensorName::role);
  if (fused == std::end(kNextNames)) return qwen3_5_source(m, block, p);
  return {named(kNextNames, block, p).name, rows_by_key_head(*m.blocks[size_t(block)].delta, p.role)};
}

}  // namespace

extern const Architecture kQwen3Next, kQwen35;
const Architecture kQwen3Next{"Qwen3NextForCausalLM", "", parse_qwen3_next, qwen3_next_source};
const Architecture kQwen35{"Qwen3_5ForCausalLM", "", parse_qwen3_5, qwen3_5_source};

}  // namespace awq
