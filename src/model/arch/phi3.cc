// Phi-3, 3.5 and 4: the Llama block with q, k, v in one tensor and gate, up in another; parts of a head may stay
// unrotated.
#include "model/arch/config.h"

namespace awq {
namespace {

ModelSpec parse_phi3(const nlohmann::json& json) {
  const Config c(json);
  BlockSpec b = llama_block(c);
  b.mlp.act = activation_of(c, "hidden_act");
  b.attention.rope = rope_of(json, b.attention.head_dim, 10000.f, 1.f);
  if (c.has("sliding_window")) b.attention.window = c.positive("sliding_window");
  return llama_model(c, json, b);
}

Source phi3_source(const ModelSpec& m, int block, Param p) {
  if (is_qkv(p.role))
    return {fmt::format("model.layers.{}.self_attn.qkv_proj", block),
            rows_in_order(m.blocks[size_t(block)].attention, p.role)};
  if (p.role == Role::gate || p.role == Role::up)
    return {fmt::format("model.layers.{}.mlp.gate_up_proj", block), rows_in_order(m.blocks[size_t(block)].mlp, p.role)};
  return llama_source(m, block, p);
}

}  // namespace

extern const Architecture kPhi3;
const Architecture kPhi3{"Phi3ForCausalLM", "phi3", parse_phi3, phi3_source};

}  // namespace awq
