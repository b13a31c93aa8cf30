// GPT-NeoX and Pythia: attention and a plain MLP read x through a layer norm each, a quarter of each head is rotated,
// q, k, v of a head lie together.
#include "model/arch/config.h"

namespace awq {
namespace {

constexpr Spelling kNeoXSpelling{.kv_heads = "num_attention_heads", .eps = "layer_norm_eps"};

ModelSpec parse_neox(const nlohmann::json& json) {
  const Config c(json);
  nlohmann::json given = json;
  if (c.has("rotary_pct")) given["partial_rotary_factor"] = c.number("rotary_pct");
  if (c.has("rotary_emb_base")) given["rope_theta"] = c.number("rotary_emb_base");
  BlockSpec b = llama_block(c, kNeoXSpelling);
  b.norm.kind = NormKind::layer;
  b.norm.bias = true;
  if (c.flag("use_parallel_residual", true)) b.parallel = Parallel::two_norms;
  b.mlp.gated = false;
  b.mlp.act = activation_of(c, "hidden_act");
  b.mlp.bias = true;
  b.attention.qkv_bias = b.attention.o_bias = c.flag("attention_bias", true);
  b.attention.rope = rope_of(given, b.attention.head_dim, 10000.f, 0.25f);
  return llama_model(c, json, b, kNeoXSpelling);
}

constexpr TensorName kNeoXNames[] = {{Role::embed, "gpt_neox.embed_in"},
                                     {Role::final_norm, "gpt_neox.final_layer_norm"},
                                     {Role::head, "embed_out"},
                                     {Role::attn_norm, "gpt_neox.layers.{}.input_layernorm"},
                                     {Role::q, "gpt_neox.layers.{}.attention.query_key_value"},
                                     {Role::k, "gpt_neox.layers.{}.attention.query_key_value"},
                                     {Role::v, "gpt_neox.layers.{}.attention.query_key_value"},
                                     {Role::o, "gpt_neox.layers.{}.attention.dense"},
                                     {Role::mlp_norm, "gpt_neox.layers.{}.post_attention_layernorm"},
                                     {Role::up, "gpt_neox.layers.{}.mlp.dense_h_to_4h"},
                                     {Role::down, "gpt_neox.layers.{}.mlp.dense_4h_to_h"}};

Source neox_source(const ModelSpec& m, int block, Param p) {
  Source s = named(kNeoXNames, block, p);
  if (is_qkv(p.role)) s.rows = rows_by_kv_head(m.blocks[size_t(block)].attention, p.role);
  return s;
}

}  // namespace

extern const Architecture kNeoX;
const Architecture kNeoX{"GPTNeoXForCausalLM", "gptneox", parse_neox, neox_source};

}  // namespace awq
