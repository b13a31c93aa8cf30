// Gemma 3 (text): norms of 1 + w before and after attention and MLP, a norm on each head of q and k, most blocks with a
// sliding window and a rope of their own, embeddings scaled by sqrt(dim), head tied to the embedding.
#include <cmath>

#include "model/arch/config.h"

namespace awq {
namespace {

RopeSpec local_rope(const nlohmann::json& json, int head_dim) {
  if (json.contains("rope_parameters"))
    return rope_of({{"rope_parameters", json.at("rope_parameters").at("sliding_attention")}}, head_dim);
  return {.theta = Config(json).number("rope_local_base_freq", 10000.f), .dims = head_dim};
}

RopeSpec global_rope(const nlohmann::json& json, int head_dim) {
  if (json.contains("rope_parameters"))
    return rope_of({{"rope_parameters", json.at("rope_parameters").at("full_attention")}}, head_dim);
  return rope_of(json, head_dim, 1e6f);
}

void apply_pattern(const Config& c, ModelSpec& m) {
  if (c.has("layer_types")) return apply_layer_types(c, m);
  const int pattern =
      c.has("sliding_window_pattern") ? c.positive("sliding_window_pattern") : c.positive("_sliding_window_pattern", 6);
  for (int i = 0; i < int(m.blocks.size()); ++i)
    if ((i + 1) % pattern) m.blocks[size_t(i)].attention.window = c.positive("sliding_window");
}

ModelSpec parse_gemma3(const nlohmann::json& json) {
  const Config c(json);
  c.require_absent_or("attn_logit_softcapping", nullptr);
  c.require_absent_or("final_logit_softcapping", nullptr);
  c.require_absent_or("use_bidirectional_attention", false);
  BlockSpec b = llama_block(c);
  b.placement = NormPlacement::both;
  b.norm.gain_offset = 1.f;
  b.mlp.act = activation_of(c, "hidden_activation");
  b.attention.head_norm = HeadNorm::head;
  b.attention.qkv_bias = b.attention.o_bias = c.flag("attention_bias", false);
  b.attention.query_scale = 1.f / std::sqrt(c.number("query_pre_attn_scalar"));
  ModelSpec m = model_without_rope(c, b);
  m.tied_embeddings = c.flag("tie_word_embeddings", true);
  m.embed_scale = std::sqrt(float(m.dim));
  apply_pattern(c, m);
  const RopeSpec local = local_rope(json, b.attention.head_dim), global = global_rope(json, b.attention.head_dim);
  for (BlockSpec& block : m.blocks) block.attention.rope = block.attention.window ? local : global;
  m.context_rule = global.text();  // max_position_embeddings is what it reaches already
  return m;
}

constexpr TensorName kGemma3Names[] = {{Role::attn_post_norm, "model.layers.{}.post_attention_layernorm"},
                                       {Role::mlp_norm, "model.layers.{}.pre_feedforward_layernorm"},
                                       {Role::mlp_post_norm, "model.layers.{}.post_feedforward_layernorm"}};
Source gemma3_source(const ModelSpec&, int block, Param p) { return named(kGemma3Names, block, p); }

}  // namespace

extern const Architecture kGemma3;
const Architecture kGemma3{"Gemma3ForCausalLM", "gemma3", parse_gemma3, gemma3_source};

}  // namespace awq
