// ChatGLM2, ChatGLM3 and GLM-4 9B as their authors published them: the GLM block under other names, with q, k, v in one
// tensor.
#include "model/arch/config.h"

namespace awq {
namespace {

constexpr Spelling kChatGlmSpelling{.kv_heads = "multi_query_group_num",
                                    .hidden = "ffn_hidden_size",
                                    .eps = "layernorm_epsilon",
                                    .blocks = "num_layers",
                                    .positions = "seq_length",
                                    .vocab = "padded_vocab_size"};

ModelSpec parse_chatglm(const nlohmann::json& json) {
  const Config c(json);
  c.require_absent_or("apply_residual_connection_post_layernorm", false);
  c.require_absent_or("rmsnorm", true);
  c.require_absent_or("post_layer_norm", true);
  c.require_absent_or("original_rope", true);
  c.require_absent_or("add_bias_linear", false);
  nlohmann::json given = json;
  given["head_dim"] = c.positive("kv_channels");
  if (!c.flag("multi_query_attention", false)) given.erase("multi_query_group_num");
  BlockSpec b = llama_block(Config(given), kChatGlmSpelling);
  b.attention.qkv_bias = c.flag("add_qkv_bias", false);
  b.attention.rope = {
      .theta = 10000.f * c.number("rope_ratio", 1.f), .dims = b.attention.head_dim / 2, .interleaved = true};
  return llama_model(c, json, b, kChatGlmSpelling);
}

constexpr TensorName kChatGlmNames[] = {{Role::embed, "transformer.embedding.word_embeddings"},
                                        {Role::final_norm, "transformer.encoder.final_layernorm"},
                                        {Role::head, "transformer.output_layer"},
                                        {Role::attn_norm, "transformer.encoder.layers.{}.input_layernorm"},
                                        {Role::q, "transformer.encoder.layers.{}.self_attention.query_key_value"},
                                        {Role::k, "transformer.encoder.layers.{}.self_attention.query_key_value"},
                                        {Role::v, "transformer.encoder.layers.{}.self_attention.query_key_value"},
                                        {Role::o, "transformer.encoder.layers.{}.self_attention.dense"},
                                        {Role::mlp_norm, "transformer.encoder.layers.{}.post_attention_layernorm"},
                                        {Role::gate, "transformer.encoder.layers.{}.mlp.dense_h_to_4h"},
                                        {Role::up, "transformer.encoder.layers.{}.mlp.dense_h_to_4h"},
                                        {Role::down, "transformer.encoder.layers.{}.mlp.dense_4h_to_h"}};

Source chatglm_source(const ModelSpec& m, int block, Param p) {
  Source s = named(kChatGlmNames, block, p);
  if (is_qkv(p.role)) s.rows = rows_in_order(m.blocks[size_t(block)].attention, p.role);
  if (p.role == Role::gate || p.role == Role::up) s.rows = rows_in_order(m.blocks[size_t(block)].mlp, p.role);
  return s;
}

}  // namespace

extern const Architecture kChatGlm, kChatGlmCausal;
const Architecture kChatGlm{"ChatGLMModel", "chatglm", parse_chatglm, chatglm_source};
const Architecture kChatGlmCausal{"ChatGLMForConditionalGeneration", "chatglm", parse_chatglm, chatglm_source};

}  // namespace awq
