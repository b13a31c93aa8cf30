// gpt-oss: experts with biases and a bounded swish, all of them in one tensor with rows of gate and up by turns; sinks
// in the softmax of each head; every second block with a window.
#include "model/arch/config.h"

namespace awq {
namespace {

ModelSpec parse_gpt_oss(const nlohmann::json& json) {
  const Config c(json);
  c.require_absent_or("hidden_act", "silu");
  BlockSpec b = llama_block(c);
  b.attention.qkv_bias = b.attention.o_bias = c.flag("attention_bias", true);
  b.attention.sinks = true;
  b.mlp = {.hidden = b.mlp.hidden, .act = Activation::clamped_swish, .bias = true};
  b.mlp.alpha = c.number("swiglu_alpha", 1.702f);
  b.mlp.limit = c.number("swiglu_limit", 7.f);
  if (!(b.mlp.alpha > 0 && b.mlp.limit > 0)) fail("config", "config.json: \"swiglu_limit\" should be above 0");
  b.experts = experts_of(c, "num_local_experts");
  b.experts->bias = true;
  ModelSpec m = llama_model(c, json, b);
  if (c.has("layer_types"))
    apply_layer_types(c, m);
  else
    for (size_t i = 0; i < m.blocks.size(); i += 2) m.blocks[i].attention.window = c.positive("sliding_window");
  return m;
}

constexpr TensorName kGptOssExpert[] = {{Role::gate, "model.layers.{}.mlp.experts.{}.gate_proj"},
                                        {Role::up, "model.layers.{}.mlp.experts.{}.up_proj"},
                                        {Role::down, "model.layers.{}.mlp.experts.{}.down_proj"}};
constexpr TensorName kGptOssNames[] = {{Role::router, "model.layers.{}.mlp.router"},
                                       {Role::sinks, "model.layers.{}.self_attn.sinks"},
                                       {Role::gate, "model.layers.{}.mlp.experts.gate_up_proj"},
                                       {Role::up, "model.layers.{}.mlp.experts.gate_up_proj"},
                                       {Role::down, "model.layers.{}.mlp.experts.down_proj"}};

Source gpt_oss_source(const ModelSpec& m, int block, Param p) {
  Source s = named(kGptOssNames, block, p);
  if (p.role == Role::sinks) s.weight = s.name;
  if (p.role != Role::gate && p.role != Role::up && p.role != Role::down) return s;
  const BlockSpec& b = m.blocks[size_t(block)];
  s = stacked(s, b, p, named(kGptOssExpert, block, p).name);
  if (p.role != Role::down) s.rows = {2 * int64_t(b.mlp.hidden) * p.expert + (p.role == Role::up), 1, 2};
  s.transposed = true;
  s.weight = s.name;
  s.bias = s.name + "_bias";
  return s;
}

}  // namespace

extern const Architecture kGptOss;
const Architecture kGptOss{"GptOssForCausalLM", "gpt-oss", parse_gpt_oss, gpt_oss_source};

}  // namespace awq
