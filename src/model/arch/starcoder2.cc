// StarCoder2: layer norms and biases everywhere, a plain MLP, one window for all blocks.
#include "model/arch/config.h"

namespace awq {
namespace {

constexpr Spelling kStarCoder2Spelling{.eps = "norm_epsilon", .tied = true};

ModelSpec parse_starcoder2(const nlohmann::json& json) {
  const Config c(json);
  BlockSpec b = llama_block(c, kStarCoder2Spelling);
  b.norm.kind = NormKind::layer;
  b.norm.bias = true;
  b.mlp.gated = false;
  b.mlp.act = activation_of(c, "hidden_act");
  b.mlp.bias = b.attention.qkv_bias = b.attention.o_bias = c.flag("use_bias", true);
  if (c.has("sliding_window")) b.attention.window = c.positive("sliding_window");
  return llama_model(c, json, b, kStarCoder2Spelling);
}

constexpr TensorName kStarCoder2Names[] = {{Role::up, "model.layers.{}.mlp.c_fc"},
                                           {Role::down, "model.layers.{}.mlp.c_proj"}};
Source starcoder2_source(const ModelSpec&, int block, Param p) { return named(kStarCoder2Names, block, p); }

}  // namespace

extern const Architecture kStarCoder2;
const Architecture kStarCoder2{"Starcoder2ForCausalLM", "starcoder2", parse_starcoder2, starcoder2_source};

}  // namespace awq
