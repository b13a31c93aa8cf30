// OLMoE: the Llama block with whole rows of q and k normalised, and experts.
#include "model/arch/config.h"

namespace awq {
namespace {

ModelSpec parse_olmoe(const nlohmann::json& json) {
  const Config c(json);
  BlockSpec b = llama_block(c);
  b.mlp.act = activation_of(c, "hidden_act");
  b.experts = experts_of(c);
  b.experts->normalized = c.flag("norm_topk_prob", false);
  b.attention.head_norm = HeadNorm::row;
  b.attention.clip = c.number("clip_qkv", 0.f);
  b.attention.qkv_bias = b.attention.o_bias = c.flag("attention_bias", false);
  return llama_model(c, json, b);
}

}  // namespace

extern const Architecture kOlmoE;
const Architecture kOlmoE{"OlmoeForCausalLM", "olmoe", parse_olmoe, experts_source};

}  // namespace awq
