// Granite: the Llama block with constants that scale embeddings, scores, residuals and logits. Granite-MoE: with
// experts, all of them in one tensor; some have one that every token passes, too.
#include <cmath>

#include "model/arch/config.h"

namespace awq {
namespace {

BlockSpec granite_block(const Config& c) {
  BlockSpec b = llama_block(c);
  b.mlp.act = activation_of(c, "hidden_act");
  b.attention.qkv_bias = b.attention.o_bias = c.flag("attention_bias", false);
  b.attention.query_scale = c.number("attention_multiplier", 1.f);
  b.residual_scale = c.number("residual_multiplier", 1.f);
  return b;
}

ModelSpec granite_model(const Config& c, const nlohmann::json& json, const BlockSpec& b) {
  ModelSpec m = llama_model(c, json, b);
  m.embed_scale = c.number("embedding_multiplier", 1.f);
  m.head_input_scale = 1.f / c.number("logits_scaling", 1.f);
  if (!std::isfinite(m.head_input_scale)) fail("config", "config.json: \"logits_scaling\" should not be 0");
  return m;
}

ModelSpec parse_granite(const nlohmann::json& json) {
  const Config c(json);
  BlockSpec b = granite_block(c);
  b.mlp.bias = c.flag("mlp_bias", false);
  return granite_model(c, json, b);
}

ModelSpec parse_granite_moe(const nlohmann::json& json) {
  const Config c(json);
  BlockSpec b = granite_block(c);
  b.experts = experts_of(c, "num_local_experts");
  return granite_model(c, json, b);
}

ModelSpec parse_granite_moe_shared(const nlohmann::json& json) {
  const Config c(json);
  ModelSpec m = parse_granite_moe(json);
  for (BlockSpec& b : m.blocks) b.experts->shared_hidden = c.whole("shared_intermediate_size", 0);
  return m;
}

constexpr TensorName kGraniteExpert[] = {{Role::gate, "model.layers.{}.block_sparse_moe.experts.{}.gate_proj"},
                                         {Role::up, "model.layers.{}.block_sparse_moe.experts.{}.up_proj"},
                                         {Role::down, "model.layers.{}.block_sparse_moe.experts.{}.down_proj"}};
constexpr TensorName kGraniteStack[] = {{Role::router, "model.layers.{}.block_sparse_moe.router.layer"},
                                        {Role::gate, "model.layers.{}.block_sparse_moe.input_linear"},
                                        {Role::up, "model.layers.{}.block_sparse_moe.input_linear"},
                                        {Role::down, "model.layers.{}.block_sparse_moe.output_linear"}};
constexpr TensorName kGraniteShared[] = {{Role::gate, "model.layers.{}.shared_mlp.input_linear"},
                                         {Role::up, "model.layers.{}.shared_mlp.input_linear"},
                                         {Role::down, "model.layers.{}.shared_mlp.output_linear"}};

Source granite_moe_source(const ModelSpec& m, int block, Param p) {
  const bool input = p.role == Role::gate || p.role == Role::up;
  if (!input && p.role != Role::down) return named(kGraniteStack, block, p);
  const BlockSpec& b = m.blocks[size_t(block)];
  Source s = named(p.expert == kSharedExpert ? std::span<const TensorName>(kGraniteShared) : kGraniteStack, block, p);
  if (input) s.rows = rows_in_order({.hidden = b.mlp_hidden(p.expert)}, p.role);
  return p.expert == kSharedExpert ? s : stacked(s, b, p, named(kGraniteExpert, block, p).name);
}

}  // namespace

extern const Architecture kGranite, kGraniteMoe, kGraniteMoeShared;
const Architecture kGranite{"GraniteForCausalLM", "granite", parse_granite, llama_source};
const Architecture kGraniteMoe{"GraniteMoeForCausalLM", "granitemoe", parse_granite_moe, granite_moe_source};
const Architecture kGraniteMoeShared{"GraniteMoeSharedForCausalLM", "granitemoe", parse_granite_moe_shared,
                                     granite_moe_source};

}  // namespace awq
