// GPT-J: attention and a plain MLP read one layer norm, neighbours of a part of each head are rotated, the head has a
// bias.
#include "model/arch/config.h"

namespace awq {
namespace {

constexpr Spelling kGptJSpelling{.dim = "n_embd",
                                 .heads = "n_head",
                                 .kv_heads = "n_head",
                                 .hidden = "n_inner",
                                 .eps = "layer_norm_epsilon",
                                 .blocks = "n_layer",
                                 .positions = "n_positions",
                                 .hidden_times = 4};

ModelSpec parse_gptj(const nlohmann::json& json) {
  const Config c(json);
  BlockSpec b = llama_block(c, kGptJSpelling);
  b.norm.kind = NormKind::layer;
  b.norm.bias = true;
  b.parallel = Parallel::one_norm;
  b.mlp.gated = false;
  b.mlp.act = activation_of(c, "activation_function");
  b.mlp.bias = true;
  b.attention.rope = {.dims = c.positive("rotary_dim"), .interleaved = true};
  if (b.attention.rope.dims > b.attention.head_dim || b.attention.rope.dims % 2)
    fail("config", "config.json: rotary_dim {} is no number of pairs of a head's {} channels", b.attention.rope.dims,
         b.attention.head_dim);
  ModelSpec m = llama_model(c, json, b, kGptJSpelling);
  m.head_bias = true;
  return m;
}

constexpr TensorName kGptJNames[] = {{Role::embed, "transformer.wte"},
                                     {Role::final_norm, "transformer.ln_f"},
                                     {Role::attn_norm, "transformer.h.{}.ln_1"},
                                     {Role::q, "transformer.h.{}.attn.q_proj"},
                                     {Role::k, "transformer.h.{}.attn.k_proj"},
                                     {Role::v, "transformer.h.{}.attn.v_proj"},
                                     {Role::o, "transformer.h.{}.attn.out_proj"},
                                     {Role::up, "transformer.h.{}.mlp.fc_in"},
                                     {Role::down, "transformer.h.{}.mlp.fc_out"}};
Source gptj_source(const ModelSpec&, int block, Param p) { return named(kGptJNames, block, p); }

}  // namespace

extern const Architecture kGptJ;
const Architecture kGptJ{"GPTJForCausalLM", "gptj", parse_gptj, gptj_source};

}  // namespace awq
