// StableLM: layer norms with biases, a quarter of each head rotated. StableLM 2 12B: attention and MLP read one norm,
// each head of q and k has a norm of its own.
#include "model/arch/config.h"

namespace awq {
namespace {

constexpr Spelling kStableLmSpelling{.eps = "layer_norm_eps"};

ModelSpec parse_stablelm(const nlohmann::json& json) {
  const Config c(json);
  c.require_absent_or("qk_layernorm", false);  // its norms are a tensor a head
  BlockSpec b = llama_block(c, kStableLmSpelling);
  b.norm.kind = NormKind::layer;
  b.norm.bias = true;
  if (c.flag("use_parallel_residual", false)) b.parallel = Parallel::one_norm;
  b.mlp.act = activation_of(c, "hidden_act");
  b.attention.qkv_bias = c.flag("use_qkv_bias", false);
  b.attention.rope = rope_of(json, b.attention.head_dim, 10000.f, 0.25f);
  return llama_model(c, json, b, kStableLmSpelling);
}

}  // namespace

extern const Architecture kStableLm;
const Architecture kStableLm{"StableLmForCausalLM", "stablelm", parse_stablelm, llama_source};

}  // namespace awq
