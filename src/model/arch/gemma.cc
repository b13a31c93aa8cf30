// Gemma 1: the Llama block with norms of 1 + w, gelu, embeddings scaled by sqrt(dim). Gemma 2: norms after the modules
// too, soft caps of scores and logits, every second block with a window.
#include <cmath>

#include "model/arch/config.h"

namespace awq {
namespace {

constexpr Spelling kGemmaSpelling{.tied = true};

BlockSpec gemma_block(const Config& c) {
  BlockSpec b = llama_block(c, kGemmaSpelling);
  b.norm.gain_offset = 1.f;
  b.mlp.act = activation_of(c, "hidden_activation");
  b.attention.qkv_bias = b.attention.o_bias = c.flag("attention_bias", false);
  return b;
}

// The first files say "gelu" or nothing, and all programs take the approximation by tanh.
ModelSpec parse_gemma(const nlohmann::json& json) {
  nlohmann::json given = json;
  if (!Config(json).has("hidden_activation")) given["hidden_activation"] = "gelu_pytorch_tanh";
  const Config c(given);
  c.require_absent_or("use_bidirectional_attention", nullptr);
  ModelSpec m = llama_model(c, json, gemma_block(c), kGemmaSpelling);
  m.embed_scale = std::sqrt(float(m.dim));
  return m;
}

ModelSpec parse_gemma2(const nlohmann::json& json) {
  const Config c(json);
  c.require_absent_or("use_bidirectional_attention", nullptr);
  BlockSpec b = gemma_block(c);
  b.placement = NormPlacement::both;
  b.attention.query_scale = 1.f / std::sqrt(c.number("query_pre_attn_scalar"));
  b.attention.soft_cap = c.number("attn_logit_softcapping", 0.f);
  ModelSpec m = llama_model(c, json, b, kGemmaSpelling);
  m.embed_scale = std::sqrt(float(m.dim));
  m.logit_cap = c.number("final_logit_softcapping", 0.f);
  if (c.has("layer_types"))
    apply_layer_types(c, m);
  else
    for (size_t i = 0; i < m.blocks.size(); i += 2) m.blocks[i].attention.window = c.positive("sliding_window");
  return m;
}

constexpr TensorName kGemmaNames[] = {{Role::attn_post_norm, "model.layers.{}.post_attention_layernorm"},
                                      {Role::mlp_norm, "model.layers.{}.pre_feedforward_layernorm"},
                                      {Role::mlp_post_norm, "model.layers.{}.post_feedforward_layernorm"}};
Source gemma2_source(const ModelSpec&, int block, Param p) { return named(kGemmaNames, block, p); }

}  // namespace

extern const Architecture kGemma, kGemma2;
const Architecture kGemma{"GemmaForCausalLM", "gemma", parse_gemma, llama_source};
const Architecture kGemma2{"Gemma2ForCausalLM", "gemma2", parse_gemma2, gemma2_source};

}  // namespace awq
