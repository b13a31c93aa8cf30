// Falcon. 7B: attention and a plain MLP read one layer norm, one kv head. 40B, 180B and 11B: kv head by kv head in one
// tensor, a norm for each of the two (11B: one). RW: one after the other, ALiBi, biases.
#include "model/arch/config.h"

namespace awq {
namespace {

constexpr Spelling kFalconSpelling{.kv_heads = "num_kv_heads",
                                   .hidden = "ffn_hidden_size",
                                   .eps = "layer_norm_epsilon",
                                   .hidden_times = 4,
                                   .tied = true};

Parallel parallel_of(const Config& c, bool grouped) {
  if (!c.flag("parallel_attn", true)) {
    c.require_absent_or("new_decoder_architecture", false);
    return Parallel::no;
  }
  return grouped && c.positive("num_ln_in_parallel_attn", 2) == 2 ? Parallel::two_norms : Parallel::one_norm;
}

ModelSpec parse_falcon(const nlohmann::json& json) {
  nlohmann::json given = json;
  for (const auto& [old, key] : {std::pair("n_head", "num_attention_heads"),
                                 {"n_head_kv", "num_kv_heads"},
                                 {"n_layer", "num_hidden_layers"},
                                 {"n_embed", "hidden_size"}})
    if (given.contains(old)) given[key] = given[old];
  const bool grouped = Config(json).flag("new_decoder_architecture", json.contains("n_head_kv"));
  if (!grouped)
    given["num_kv_heads"] = Config(json).flag("multi_query", true) ? 1 : given.at("num_attention_heads").get<int>();
  if (!given.contains("max_position_embeddings")) given["max_position_embeddings"] = 2048;
  const Config c(given);
  BlockSpec b = llama_block(c, kFalconSpelling);
  b.norm.kind = NormKind::layer;
  b.norm.bias = true;
  b.parallel = parallel_of(c, grouped);
  b.mlp.gated = false;
  b.mlp.act = c.has("activation") ? activation_of(c, "activation") : Activation::gelu;
  b.mlp.bias = b.attention.qkv_bias = b.attention.o_bias = c.flag("bias", false);
  if (!c.flag("alibi", false)) return llama_model(c, given, b, kFalconSpelling);
  b.attention.alibi = b.attention.query_scale;  // added to q.k before they are scaled
  return model_without_rope(c, b, kFalconSpelling);
}

constexpr TensorName kFalconNames[] = {{Role::embed, "transformer.word_embeddings"},
                                       {Role::final_norm, "transformer.ln_f"},
                                       {Role::attn_norm, "transformer.h.{}.input_layernorm"},
                                       {Role::q, "transformer.h.{}.self_attention.query_key_value"},
                                       {Role::k, "transformer.h.{}.self_attention.query_key_value"},
                                       {Role::v, "transformer.h.{}.self_attention.query_key_value"},
                                       {Role::o, "transformer.h.{}.self_attention.dense"},
                                       {Role::mlp_norm, "transformer.h.{}.post_attention_layernorm"},
                                       {Role::up, "transformer.h.{}.mlp.dense_h_to_4h"},
                                       {Role::down, "transformer.h.{}.mlp.dense_4h_to_h"}};
constexpr TensorName kNormEach[] = {{Role::attn_norm, "transformer.h.{}.ln_attn"},
                                    {Role::mlp_norm, "transformer.h.{}.ln_mlp"}};

Source falcon_source(const ModelSpec& m, int block, Param p) {
  const bool own = block >= 0 && m.blocks[size_t(block)].parallel == Parallel::two_norms;
  Source s = named(own && is_norm(p.role) ? std::span<const TensorName>(kNormEach) : kFalconNames, block, p);
  if (is_qkv(p.role)) s.rows = rows_by_kv_head(m.blocks[size_t(block)].attention, p.role);
  return s;
}

}  // namespace

extern const Architecture kFalcon, kRefinedWeb;
const Architecture kFalcon{"FalconForCausalLM", "falcon", parse_falcon, falcon_source};
const Architecture kRefinedWeb{"RWForCausalLM", "falcon", parse_falcon, falcon_source};

}  // namespace awq
