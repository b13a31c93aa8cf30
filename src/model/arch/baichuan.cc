// Baichuan 2: the Llama block with q, k, v in one tensor and a head of unit rows. 7B rotates, 13B has ALiBi; their
// configs differ in a key only: 7B says max_position_embeddings, 13B model_max_length.
#include "model/arch/config.h"

namespace awq {
namespace {

constexpr int kVocabularyOf2 = 125696;  // the first Baichuan has 64,000 tokens and a plain head

ModelSpec parse_baichuan(const nlohmann::json& json) {
  const Config c(json);
  const bool rotates = c.has("max_position_embeddings");
  const Spelling names{.positions = rotates ? "max_position_embeddings" : "model_max_length"};
  BlockSpec b = llama_block(c, names);
  b.mlp.act = activation_of(c, "hidden_act");
  if (!rotates) b.attention.alibi = 1.f;
  ModelSpec m = rotates ? llama_model(c, json, b, names) : model_without_rope(c, b, names);
  m.head_unit_rows = c.flag("normalized_head", m.vocab >= kVocabularyOf2);
  return m;
}

Source baichuan_source(const ModelSpec& m, int block, Param p) {
  if (is_qkv(p.role))
    return {fmt::format("model.layers.{}.self_attn.W_pack", block),
            rows_in_order(m.blocks[size_t(block)].attention, p.role)};
  return llama_source(m, block, p);
}

}  // namespace

extern const Architecture kBaichuan;
const Architecture kBaichuan{"BaichuanForCausalLM", "baichuan", parse_baichuan, baichuan_source};

}  // namespace awq
