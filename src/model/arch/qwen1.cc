// Qwen (the first): the Llama block with q, k, v and their biases in one tensor. Its intermediate_size counts both of
// the MLP's inputs; w1 is up, w2 the gate. Beyond seq_length it would scale angles and scores, which is refused.
#include "model/arch/config.h"

namespace awq {
namespace {

constexpr Spelling kQwen1Spelling{.eps = "layer_norm_epsilon", .positions = "seq_length"};

ModelSpec parse_qwen1(const nlohmann::json& json) {
  const Config c(json);
  c.require_absent_or("no_bias", true);
  c.require_absent_or("rotary_pct", 1.0);
  c.require_absent_or("scale_attn_weights", true);
  nlohmann::json given = json;
  for (const auto& [old, key] : {std::pair("n_embd", "hidden_size"),  // the first files' spelling
                                 {"n_head", "num_attention_heads"},
                                 {"n_layer", "num_hidden_layers"},
                                 {"ffn_hidden_size", "intermediate_size"}})
    if (!given.contains(key) && given.contains(old)) given[key] = given[old];
  given["head_dim"] = c.positive("kv_channels");
  given["rope_theta"] = c.number("rotary_emb_base", 10000.f);
  BlockSpec b = llama_block(Config(given), kQwen1Spelling);
  b.mlp.hidden /= 2;
  b.attention.qkv_bias = true;
  ModelSpec m = llama_model(Config(given), given, b, kQwen1Spelling);
  m.context_rule = "dynamic rope scaling and scaled scores, which act beyond them and are not implemented there";
  return m;
}

constexpr TensorName kQwen1Names[] = {
    {Role::embed, "transformer.wte"},           {Role::final_norm, "transformer.ln_f"},
    {Role::attn_norm, "transformer.h.{}.ln_1"}, {Role::q, "transformer.h.{}.attn.c_attn"},
    {Role::k, "transformer.h.{}.attn.c_attn"},  {Role::v, "transformer.h.{}.attn.c_attn"},
    {Role::o, "transformer.h.{}.attn.c_proj"},  {Role::mlp_norm, "transformer.h.{}.ln_2"},
    {Role::gate, "transformer.h.{}.mlp.w2"},    {Role::up, "transformer.h.{}.mlp.w1"},
    {Role::down, "transformer.h.{}.mlp.c_proj"}};

Source qwen1_source(const ModelSpec& m, int block, Param p) {
  Source s = named(kQwen1Names, block, p);
  if (is_qkv(p.role)) s.rows = rows_in_order(m.blocks[size_t(block)].attention, p.role);
  return s;
}

}  // namespace

extern const Architecture kQwen1;
const Architecture kQwen1{"QWenLMHeadModel", "qwen", parse_qwen1, qwen1_source};

}  // namespace awq
