// MPT: layer norms without bias, ALiBi, q, k, v in one tensor, a plain MLP.
#include "model/arch/config.h"

namespace awq {
namespace {

constexpr Spelling kMptSpelling{.dim = "d_model",
                                .heads = "n_heads",
                                .kv_heads = "n_heads",
                                .hidden = "ffn_hidden",
                                .eps = "layer_norm_epsilon",
                                .blocks = "n_layers",
                                .positions = "max_seq_len",
                                .tied = true};

ModelSpec parse_mpt(const nlohmann::json& json) {
  nlohmann::json given = json;
  if (!Config(json).has("layer_norm_epsilon")) given["layer_norm_epsilon"] = 1e-5;
  const Config c(given);
  given["ffn_hidden"] = int64_t(c.positive("d_model")) * c.positive("expansion_ratio", 4);
  c.require_absent_or("no_bias", true);
  c.require_absent_or("logit_scale", nullptr);
  c.require_absent_or("norm_type", "low_precision_layernorm");
  const nlohmann::json none = nlohmann::json::object();
  const Config attention(c.has("attn_config") ? c.at("attn_config") : none);
  attention.require_absent_or("alibi", true);
  attention.require_absent_or("alibi_bias_max", 8);
  attention.require_absent_or("attn_type", "multihead_attention");
  attention.require_absent_or("prefix_lm", false);
  attention.require_absent_or("qk_ln", false);
  attention.require_absent_or("attn_uses_sequence_id", false);
  BlockSpec b = llama_block(c, kMptSpelling);
  b.norm.kind = NormKind::layer;
  b.mlp.gated = false;
  b.mlp.act = Activation::gelu;
  b.attention.alibi = 1.f;
  b.attention.clip = attention.number("clip_qkv", 0.f);
  b.attention.query_scale = attention.number("softmax_scale", b.attention.query_scale);
  return model_without_rope(c, b, kMptSpelling);
}

constexpr TensorName kMptNames[] = {{Role::embed, "transformer.wte"},
                                    {Role::final_norm, "transformer.norm_f"},
                                    {Role::attn_norm, "transformer.blocks.{}.norm_1"},
                                    {Role::q, "transformer.blocks.{}.attn.Wqkv"},
                                    {Role::k, "transformer.blocks.{}.attn.Wqkv"},
                                    {Role::v, "transformer.blocks.{}.attn.Wqkv"},
                                    {Role::o, "transformer.blocks.{}.attn.out_proj"},
                                    {Role::mlp_norm, "transformer.blocks.{}.norm_2"},
                                    {Role::up, "transformer.blocks.{}.ffn.up_proj"},
                                    {Role::down, "transformer.blocks.{}.ffn.down_proj"}};

Source mpt_source(const ModelSpec& m, int block, Param p) {
  Source s = named(kMptNames, block, p);
  if (is_qkv(p.role)) s.rows = rows_in_order(m.blocks[size_t(block)].attention, p.role);
  return s;
}

}  // namespace

extern const Architecture kMpt, kMptOfTransformers;
const Architecture kMpt{"MPTForCausalLM", "mpt", parse_mpt, mpt_source};
const Architecture kMptOfTransformers{"MptForCausalLM", "mpt", parse_mpt, mpt_source};

}  // namespace awq
