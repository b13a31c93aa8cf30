// InternLM2: the Llama block under other names, its q, k, v in one tensor, kv head by kv head. InternLM3: Llama's
// names.
#include "model/arch/config.h"

namespace awq {
namespace {

ModelSpec parse_internlm2(const nlohmann::json& json) {
  const Config c(json);
  BlockSpec b = llama_block(c);
  b.mlp.act = activation_of(c, "hidden_act");
  b.attention.qkv_bias = b.attention.o_bias = c.flag("bias", true);
  return llama_model(c, json, b);
}

ModelSpec parse_internlm3(const nlohmann::json& json) {
  const Config c(json);
  BlockSpec b = llama_block(c);
  b.mlp.act = activation_of(c, "hidden_act");
  b.mlp.bias = b.attention.o_bias = c.flag("bias", false);
  b.attention.qkv_bias = c.flag("qkv_bias", false);
  return llama_model(c, json, b);
}

constexpr TensorName kInternLmNames[] = {{Role::embed, "model.tok_embeddings"},
                                         {Role::head, "output"},
                                         {Role::attn_norm, "model.layers.{}.attention_norm"},
                                         {Role::q, "model.layers.{}.attention.wqkv"},
                                         {Role::k, "model.layers.{}.attention.wqkv"},
                                         {Role::v, "model.layers.{}.attention.wqkv"},
                                         {Role::o, "model.layers.{}.attention.wo"},
                                         {Role::mlp_norm, "model.layers.{}.ffn_norm"},
                                         {Role::gate, "model.layers.{}.feed_forward.w1"},
                                         {Role::up, "model.layers.{}.feed_forward.w3"},
                                         {Role::down, "model.layers.{}.feed_forward.w2"}};

Source internlm2_source(const ModelSpec& m, int block, Param p) {
  Source s = named(kInternLmNames, block, p);
  if (is_qkv(p.role)) s.rows = rows_by_kv_head(m.blocks[size_t(block)].attention, p.role);
  return s;
}

}  // namespace

extern const Architecture kInternLm2, kInternLm3;
const Architecture kInternLm2{"InternLM2ForCausalLM", "internlm2", parse_internlm2, internlm2_source};
const Architecture kInternLm3{"InternLM3ForCausalLM", "llama", parse_internlm3, llama_source};

}  // namespace awq
