// BLOOM: layer norms, one on embeddings too, ALiBi, a plain MLP; q, k, v of a head lie together.
#include "model/arch/config.h"

namespace awq {
namespace {

ModelSpec parse_bloom(const nlohmann::json& json) {
  nlohmann::json given = json;  // two spellings of sizes, and a context that only training had
  for (const auto& [key, other] :
       {std::pair("n_embed", "hidden_size"), {"num_attention_heads", "n_head"}, {"num_hidden_layers", "n_layer"}})
    if (!Config(given).has(other) && Config(given).has(key)) given[other] = given[key];
  if (!Config(given).has("seq_length")) given["seq_length"] = 2048;
  const Spelling names{.heads = "n_head",
                       .kv_heads = "n_head",
                       .hidden = "n_inner",
                       .eps = "layer_norm_epsilon",
                       .blocks = "n_layer",
                       .positions = "seq_length",
                       .hidden_times = 4,
                       .tied = true};
  const Config c(given);
  c.require_absent_or("apply_residual_connection_post_layernorm", false);
  BlockSpec b = llama_block(c, names);
  b.norm.kind = NormKind::layer;
  b.norm.bias = true;
  b.mlp.gated = false;
  b.mlp.act = Activation::gelu_tanh;
  b.mlp.bias = b.attention.qkv_bias = b.attention.o_bias = true;
  b.attention.alibi = 1.f;
  ModelSpec m = model_without_rope(c, b, names);
  m.embed_norm = true;
  return m;
}

constexpr TensorName kBloomNames[] = {{Role::embed, "transformer.word_embeddings"},
                                      {Role::embed_norm, "transformer.word_embeddings_layernorm"},
                                      {Role::final_norm, "transformer.ln_f"},
                                      {Role::attn_norm, "transformer.h.{}.input_layernorm"},
                                      {Role::q, "transformer.h.{}.self_attention.query_key_value"},
                                      {Role::k, "transformer.h.{}.self_attention.query_key_value"},
                                      {Role::v, "transformer.h.{}.self_attention.query_key_value"},
                                      {Role::o, "transformer.h.{}.self_attention.dense"},
                                      {Role::mlp_norm, "transformer.h.{}.post_attention_layernorm"},
                                      {Role::up, "transformer.h.{}.mlp.dense_h_to_4h"},
                                      {Role::down, "transformer.h.{}.mlp.dense_4h_to_h"}};

Source bloom_source(const ModelSpec& m, int block, Param p) {
  Source s = named(kBloomNames, block, p);
  if (is_qkv(p.role)) s.rows = rows_by_kv_head(m.blocks[size_t(block)].attention, p.role);
  return s;
}

}  // namespace

extern const Architecture kBloom;
const Architecture kBloom{"BloomForCausalLM", "bloom", parse_bloom, bloom_source};

}  // namespace awq
