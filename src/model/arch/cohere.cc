// Cohere (Command R): layer norms without bias, one for attention and MLP, neighbours rotated, scaled logits; R+ has
// norms on each head. Cohere 2 (R7B, A): three blocks of four with a window, the others without rotation.
#include "model/arch/config.h"

namespace awq {
namespace {

constexpr Spelling kCohereSpelling{.eps = "layer_norm_eps", .tied = true};

ModelSpec parse_cohere(const nlohmann::json& json) {
  const Config c(json);
  BlockSpec b = llama_block(c, kCohereSpelling);
  b.norm.kind = NormKind::layer;
  b.parallel = Parallel::one_norm;
  b.mlp.act = activation_of(c, "hidden_act");
  b.attention.qkv_bias = b.attention.o_bias = c.flag("attention_bias", false);
  if (c.flag("use_qk_norm", false)) b.attention.head_norm = HeadNorm::each_head;
  b.attention.rope = rope_of(json, b.attention.head_dim);
  b.attention.rope.interleaved = true;
  ModelSpec m = llama_model(c, json, b, kCohereSpelling);
  m.head_input_scale = c.number("logit_scale", 0.0625f);
  return m;
}

ModelSpec parse_cohere2(const nlohmann::json& json) {
  const Config c(json);
  c.require_absent_or("use_qk_norm", false);
  ModelSpec m = parse_cohere(json);
  const int period = c.positive("sliding_window_pattern", 4);
  if (c.has("layer_types"))
    apply_layer_types(c, m);
  else
    for (int i = 0; i < int(m.blocks.size()); ++i)
      if ((i + 1) % period) m.blocks[size_t(i)].attention.window = c.positive("sliding_window");
  for (BlockSpec& b : m.blocks)
    if (!b.attention.window) b.attention.rope.dims = 0;
  return m;
}

}  // namespace

extern const Architecture kCohere, kCohere2;
const Architecture kCohere{"CohereForCausalLM", "command-r", parse_cohere, llama_source};
const Architecture kCohere2{"Cohere2ForCausalLM", "cohere2", parse_cohere2, llama_source};

}  // namespace awq
