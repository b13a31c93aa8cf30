// EXAONE 3 and 3.5: the Llama block under other names.
#include "model/arch/config.h"

namespace awq {
namespace {

constexpr Spelling kExaoneSpelling{.eps = "layer_norm_epsilon", .blocks = "num_layers"};

ModelSpec parse_exaone(const nlohmann::json& json) {
  const Config c(json);
  BlockSpec b = llama_block(c, kExaoneSpelling);
  b.mlp.act = activation_of(c, "activation_function");
  return llama_model(c, json, b, kExaoneSpelling);
}

constexpr TensorName kExaoneNames[] = {{Role::embed, "transformer.wte"},
                                       {Role::final_norm, "transformer.ln_f"},
                                       {Role::attn_norm, "transformer.h.{}.ln_1"},
                                       {Role::q, "transformer.h.{}.attn.attention.q_proj"},
                                       {Role::k, "transformer.h.{}.attn.attention.k_proj"},
                                       {Role::v, "transformer.h.{}.attn.attention.v_proj"},
                                       {Role::o, "transformer.h.{}.attn.attention.out_proj"},
                                       {Role::mlp_norm, "transformer.h.{}.ln_2"},
                                       {Role::gate, "transformer.h.{}.mlp.c_fc_0"},
                                       {Role::up, "transformer.h.{}.mlp.c_fc_1"},
                                       {Role::down, "transformer.h.{}.mlp.c_proj"}};
Source exaone_source(const ModelSpec&, int block, Param p) { return named(kExaoneNames, block, p); }

}  // namespace

extern const Architecture kExaone;
const Architecture kExaone{"ExaoneForCausalLM", "exaone", parse_exaone, exaone_source};

}  // namespace awq
