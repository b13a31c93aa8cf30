// GPT-2: layer norms, learned positions, a plain MLP; matrices are stored as [in, out]. GPT-BigCode (StarCoder): the
// same with one kv head for all, and matrices the usual way.
#include "model/arch/config.h"

namespace awq {
namespace {

constexpr Spelling kGpt2Spelling{.dim = "n_embd",
                                 .heads = "n_head",
                                 .kv_heads = "n_head",
                                 .hidden = "n_inner",
                                 .eps = "layer_norm_epsilon",
                                 .blocks = "n_layer",
                                 .positions = "n_positions",
                                 .hidden_times = 4,
                                 .tied = true};

ModelSpec parse_gpt2_with(const Config& c, int kv_heads) {
  c.require_absent_or("scale_attn_weights", true);
  c.require_absent_or("add_cross_attention", false);
  BlockSpec b = llama_block(c, kGpt2Spelling);
  b.norm.kind = NormKind::layer;
  b.norm.bias = true;
  b.mlp.gated = false;
  b.mlp.act = activation_of(c, "activation_function");
  b.mlp.bias = b.attention.qkv_bias = b.attention.o_bias = true;
  if (kv_heads) b.attention.kv_heads = kv_heads;
  ModelSpec m = model_without_rope(c, b, kGpt2Spelling);
  m.learned_positions = m.max_context;
  return m;
}

ModelSpec parse_gpt2(const nlohmann::json& json) {
  const Config c(json);
  c.require_absent_or("scale_attn_by_inverse_layer_idx", false);
  return parse_gpt2_with(c, 0);
}

ModelSpec parse_bigcode(const nlohmann::json& json) {
  return parse_gpt2_with(Config(json), Config(json).flag("multi_query", true) ? 1 : 0);
}

constexpr TensorName kGpt2Names[] = {
    {Role::embed, "transformer.wte"},           {Role::positions, "transformer.wpe"},
    {Role::final_norm, "transformer.ln_f"},     {Role::attn_norm, "transformer.h.{}.ln_1"},
    {Role::q, "transformer.h.{}.attn.c_attn"},  {Role::k, "transformer.h.{}.attn.c_attn"},
    {Role::v, "transformer.h.{}.attn.c_attn"},  {Role::o, "transformer.h.{}.attn.c_proj"},
    {Role::mlp_norm, "transformer.h.{}.ln_2"},  {Role::up, "transformer.h.{}.mlp.c_fc"},
    {Role::down, "transformer.h.{}.mlp.c_proj"}};

Source gpt2_source(const ModelSpec& m, int block, Param p) {
  Source s = named(kGpt2Names, block, p);
  if (is_qkv(p.role)) s.rows = rows_in_order(m.blocks[size_t(block)].attention, p.role);
  s.transposed = block >= 0 && !is_norm(p.role);
  return s;
}

Source bigcode_source(const ModelSpec& m, int block, Param p) {
  Source s = named(kGpt2Names, block, p);
  if (is_qkv(p.role)) s.rows = rows_by_kv_head(m.blocks[size_t(block)].attention, p.role);
  return s;
}

}  // namespace

extern const Architecture kGpt2, kBigCode;
const Architecture kGpt2{"GPT2LMHeadModel", "gpt2", parse_gpt2, gpt2_source};
const Architecture kBigCode{"GPTBigCodeForCausalLM", "starcoder", parse_bigcode, bigcode_source};

}  // namespace awq
