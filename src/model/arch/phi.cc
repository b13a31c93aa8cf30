// Phi-1, 1.5 and 2: attention and a plain MLP read one layer norm, part of each head is rotated, biases everywhere,
// also in the head.
#include "model/arch/config.h"

namespace awq {
namespace {

constexpr Spelling kPhiSpelling{.eps = "layer_norm_eps"};

ModelSpec parse_phi(const nlohmann::json& json) {
  const Config c(json);
  c.require_absent_or("qk_layernorm", false);
  BlockSpec b = llama_block(c, kPhiSpelling);
  b.norm.kind = NormKind::layer;
  b.norm.bias = true;
  b.parallel = Parallel::one_norm;
  b.mlp.gated = false;
  b.mlp.act = activation_of(c, "hidden_act");
  b.mlp.bias = b.attention.qkv_bias = b.attention.o_bias = true;
  b.attention.rope = rope_of(json, b.attention.head_dim, 10000.f, 0.5f);
  ModelSpec m = llama_model(c, json, b, kPhiSpelling);
  m.head_bias = true;
  return m;
}

constexpr TensorName kPhiNames[] = {{Role::final_norm, "model.final_layernorm"},
                                    {Role::o, "model.layers.{}.self_attn.dense"},
                                    {Role::up, "model.layers.{}.mlp.fc1"},
                                    {Role::down, "model.layers.{}.mlp.fc2"}};
Source phi_source(const ModelSpec&, int block, Param p) { return named(kPhiNames, block, p); }

}  // namespace

extern const Architecture kPhi;
const Architecture kPhi{"PhiForCausalLM", "phi2", parse_phi, phi_source};

}  // namespace awq
