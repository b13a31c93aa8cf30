// Mixtral: Mistral's block with experts.
#include "model/arch/config.h"

namespace awq {
namespace {

ModelSpec parse_mixtral(const nlohmann::json& json) {
  const Config c(json);
  BlockSpec b = llama_block(c);
  b.mlp.act = activation_of(c, "hidden_act");
  b.experts = experts_of(c, "num_local_experts");
  if (c.has("sliding_window")) b.attention.window = c.positive("sliding_window");
  return llama_model(c, json, b);
}

constexpr TensorName kMixtralNames[] = {{Role::router, "model.layers.{}.block_sparse_moe.gate"},
                                        {Role::gate, "model.layers.{}.block_sparse_moe.experts.{}.w1"},
                                        {Role::up, "model.layers.{}.block_sparse_moe.experts.{}.w3"},
                                        {Role::down, "model.layers.{}.block_sparse_moe.experts.{}.w2"}};
Source mixtral_source(const ModelSpec&, int block, Param p) { return named(kMixtralNames, block, p); }

}  // namespace

extern const Architecture kMixtral;
const Architecture kMixtral{"MixtralForCausalLM", "llama", parse_mixtral, mixtral_source};

}  // namespace awq
