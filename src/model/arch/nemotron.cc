// Nemotron 3 and 4, Minitron: layer norms of 1 + w with biases, a plain MLP with the square of relu, half of each head
// rotated.
#include "model/arch/config.h"

namespace awq {
namespace {

constexpr Spelling kNemotronSpelling{.eps = "norm_eps"};

ModelSpec parse_nemotron(const nlohmann::json& json) {
  const Config c(json);
  BlockSpec b = llama_block(c, kNemotronSpelling);
  b.norm.kind = NormKind::layer;
  b.norm.bias = true;
  b.norm.gain_offset = 1.f;
  b.mlp.gated = false;
  b.mlp.act = activation_of(c, "hidden_act");
  b.mlp.bias = c.flag("mlp_bias", false);
  b.attention.qkv_bias = b.attention.o_bias = c.flag("attention_bias", false);
  b.attention.rope = rope_of(json, b.attention.head_dim, 10000.f, 0.5f);
  return llama_model(c, json, b, kNemotronSpelling);
}

}  // namespace

extern const Architecture kNemotron;
const Architecture kNemotron{"NemotronForCausalLM", "nemotron", parse_nemotron, llama_source};

}  // namespace awq
