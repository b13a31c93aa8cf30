// OPT: layer norms, learned positions from row 2 on, a plain MLP with relu.
#include "model/arch/config.h"

namespace awq {
namespace {

constexpr Spelling kOptSpelling{
    .kv_heads = "num_attention_heads", .hidden = "ffn_dim", .eps = "layer_norm_eps", .tied = true};
constexpr int kOptFirstRow = 2;

ModelSpec parse_opt(const nlohmann::json& json) {
  const Config of_file(json);
  of_file.require_absent_or("do_layer_norm_before", true);  // false in OPT-350m alone
  of_file.require_absent_or("_remove_final_layer_norm", false);
  of_file.require_absent_or("layer_norm_elementwise_affine", true);
  of_file.require_absent_or("word_embed_proj_dim", of_file.positive("hidden_size"));
  nlohmann::json given = json;
  given["layer_norm_eps"] = 1e-5;  // in no file: PyTorch's default
  const Config c(given);
  BlockSpec b = llama_block(c, kOptSpelling);
  b.norm.kind = NormKind::layer;
  b.norm.bias = true;
  b.mlp.gated = false;
  b.mlp.act = activation_of(c, "activation_function");
  b.mlp.bias = b.attention.qkv_bias = b.attention.o_bias = c.flag("enable_bias", true);
  ModelSpec m = model_without_rope(c, b, kOptSpelling);
  m.max_context = std::min(m.max_context, INT32_MAX - kOptFirstRow);
  m.learned_positions = m.max_context + kOptFirstRow;
  m.first_position_row = kOptFirstRow;
  return m;
}

constexpr TensorName kOptNames[] = {{Role::embed, "model.decoder.embed_tokens"},
                                    {Role::positions, "model.decoder.embed_positions"},
                                    {Role::final_norm, "model.decoder.final_layer_norm"},
                                    {Role::attn_norm, "model.decoder.layers.{}.self_attn_layer_norm"},
                                    {Role::q, "model.decoder.layers.{}.self_attn.q_proj"},
                                    {Role::k, "model.decoder.layers.{}.self_attn.k_proj"},
                                    {Role::v, "model.decoder.layers.{}.self_attn.v_proj"},
                                    {Role::o, "model.decoder.layers.{}.self_attn.out_proj"},
                                    {Role::mlp_norm, "model.decoder.layers.{}.final_layer_norm"},
                                    {Role::up, "model.decoder.layers.{}.fc1"},
                                    {Role::down, "model.decoder.layers.{}.fc2"}};
Source opt_source(const ModelSpec&, int block, Param p) { return named(kOptNames, block, p); }

}  // namespace

extern const Architecture kOpt;
const Architecture kOpt{"OPTForCausalLM", "", parse_opt, opt_source};

}  // namespace awq
