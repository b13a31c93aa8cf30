// OLMo: layer norms without parameters, q, k, v kept within a bound. OLMo 2 and 3: norms after attention and MLP only,
// whole rows of q and k normalised; OLMo 3 has windows.
#include "model/arch/config.h"

namespace awq {
namespace {

ModelSpec parse_olmo(const nlohmann::json& json) {
  nlohmann::json given = json;
  given["rms_norm_eps"] = 1e-5;  // in no file: transformers' constant
  const Config c(given);
  BlockSpec b = llama_block(c);
  b.norm.kind = NormKind::layer;
  b.norm.gain = false;
  b.mlp.act = activation_of(c, "hidden_act");
  b.attention.clip = c.number("clip_qkv", 0.f);
  b.attention.qkv_bias = b.attention.o_bias = c.flag("attention_bias", false);
  return llama_model(c, json, b);
}

BlockSpec olmo_post_norm_block(const Config& c) {
  BlockSpec b = llama_block(c);
  b.placement = NormPlacement::after;
  b.mlp.act = activation_of(c, "hidden_act");
  b.attention.head_norm = HeadNorm::row;
  b.attention.qkv_bias = b.attention.o_bias = c.flag("attention_bias", false);
  return b;
}

ModelSpec parse_olmo2(const nlohmann::json& json) {
  const Config c(json);
  return llama_model(c, json, olmo_post_norm_block(c));
}

// Blocks with a window turn by plain angles.
ModelSpec parse_olmo3(const nlohmann::json& json) {
  const Config c(json);
  BlockSpec block = olmo_post_norm_block(c);
  block.attention.rope = rope_of(rope_of_type(json, "full_attention"), block.attention.head_dim, 500000.f);
  ModelSpec m = llama_model(c, json, block);
  if (c.has("layer_types"))
    apply_layer_types(c, m);
  else
    for (size_t i = 0; i < m.blocks.size(); ++i)
      if ((i + 1) % 4) m.blocks[i].attention.window = c.positive("sliding_window");
  for (BlockSpec& b : m.blocks)
    if (RopeSpec& r = b.attention.rope; b.attention.window) r = {.theta = r.theta, .dims = r.dims};
  return m;
}

constexpr TensorName kOlmoNames[] = {{Role::attn_post_norm, "model.layers.{}.post_attention_layernorm"},
                                     {Role::mlp_post_norm, "model.layers.{}.post_feedforward_layernorm"}};
Source olmo2_source(const ModelSpec&, int block, Param p) { return named(kOlmoNames, block, p); }

}  // namespace

extern const Architecture kOlmo, kOlmo2, kOlmo3;
const Architecture kOlmo{"OlmoForCausalLM", "olmo", parse_olmo, llama_source};
const Architecture kOlmo2{"Olmo2ForCausalLM", "olmo2", parse_olmo2, olmo2_source};
const Architecture kOlmo3{"Olmo3ForCausalLM", "olmo2", parse_olmo3, olmo2_source};

}  // namespace awq
