// GGUF files of Llama and its kin: Mistral, Mixtral, Qwen 2 and 3, Granite, OLMoE, Gemma 3.
#include <algorithm>

#include "model/arch/gguf.h"

namespace awq {
namespace {

using Json = nlohmann::json;

Json mixtral_gguf(const GgufKeys& k) {
  Json c = gguf_config_of(k, "MixtralForCausalLM", "mixtral");
  c["hidden_act"] = "silu";
  c["num_local_experts"] = k.size("expert_count");
  c["num_experts_per_tok"] = k.size("expert_used_count");
  if (gguf_window(k)) c["sliding_window"] = gguf_window(k);
  apply_gguf_divisors(k, c);
  return c;
}

/// Llama with biases at q, k and v and other ones or none elsewhere.
Json internlm3_gguf(const GgufKeys& k) {
  Json c = gguf_config_of(k, "InternLM3ForCausalLM", "internlm3");
  c.update({{"hidden_act", "silu"}, {"qkv_bias", k.has_bias("attn_q")}, {"bias", k.has_bias("attn_output")}});
  apply_gguf_divisors(k, c);
  return c;
}

Json llama_gguf(const GgufKeys& k) {
  if (k.whole("expert_count") != 0) return mixtral_gguf(k);
  if (k.has_bias("attn_q") != k.has_bias("attn_output")) return internlm3_gguf(k);
  Json c = gguf_window(k) ? gguf_config_of(k, "MistralForCausalLM", "mistral")
                          : gguf_config_of(k, "LlamaForCausalLM", "llama");
  if (gguf_window(k)) c["sliding_window"] = gguf_window(k);
  c["hidden_act"] = "silu";
  c["attention_bias"] = k.has_bias("attn_q");
  c["mlp_bias"] = k.has_bias("ffn_gate");
  apply_gguf_divisors(k, c);
  return c;
}

Json qwen_gguf(const GgufKeys& k, std::string_view architecture) {
  refuse_gguf_experts(k);
  Json c = gguf_config_of(k, architecture, k.arch());
  c["hidden_act"] = "silu";
  c["use_sliding_window"] = false;
  return c;
}

Json qwen2_gguf(const GgufKeys& k) { return qwen_gguf(k, "Qwen2ForCausalLM"); }

Json qwen3_gguf(const GgufKeys& k) {
  Json c = qwen_gguf(k, "Qwen3ForCausalLM");
  c["attention_bias"] = k.has_bias("attn_q");
  return c;
}

/// Programs take whether the weights are divided by their sum from the family's name.
Json qwen_moe_gguf(const GgufKeys& k, std::string_view architecture, std::string_view model_type, bool normalized) {
  Json c = gguf_config_of(k, architecture, model_type);
  c.update({{"hidden_act", "silu"},
            {"use_sliding_window", false},
            {"num_experts", k.size("expert_count")},
            {"num_experts_per_tok", k.size("expert_used_count")},
            {"moe_intermediate_size", k.size("expert_feed_forward_length")},
            {"norm_topk_prob", normalized}});
  return c;
}

/// The language of a model that sees: its axes of positions are one for text.
Json qwen2vl_gguf(const GgufKeys& k) {
  Json c = qwen2_gguf(k);
  c["model_type"] = "qwen2";
  return c;
}

Json qwen3vl_gguf(const GgufKeys& k) {
  Json c = qwen3_gguf(k);
  c["model_type"] = "qwen3";
  return c;
}

void add_granites_scales(const GgufKeys& k, Json& c) {
  c.update({{"hidden_act", "silu"},
            {"attention_bias", k.has_bias("attn_q")},
            {"embedding_multiplier", k.decimal("embedding_scale", 1)},
            {"residual_multiplier", k.decimal("residual_scale", 1)},
            {"attention_multiplier", k.decimal("attention.scale")},
            {"logits_scaling", k.decimal("logit_scale", 1)}});
}

Json granite_gguf(const GgufKeys& k) {
  refuse_gguf_experts(k);
  Json c = gguf_config_of(k, "GraniteForCausalLM", "granite");
  add_granites_scales(k, c);
  c["mlp_bias"] = k.has_bias("ffn_gate");
  return c;
}

Json granitemoe_gguf(const GgufKeys& k) {
  const int64_t shared = k.size("expert_shared_feed_forward_length", 0);
  Json c = shared ? gguf_config_of(k, "GraniteMoeSharedForCausalLM", "granitemoeshared")
                  : gguf_config_of(k, "GraniteMoeForCausalLM", "granitemoe");
  add_granites_scales(k, c);
  c["num_local_experts"] = k.size("expert_count");
  c["num_experts_per_tok"] = k.size("expert_used_count");
  if (shared) c["shared_intermediate_size"] = shared;
  return c;
}

Json olmoe_gguf(const GgufKeys& k) {
  Json c = gguf_config_of(k, "OlmoeForCausalLM", "olmoe");
  c.update({{"hidden_act", "silu"},
            {"attention_bias", false},
            {"num_experts", k.size("expert_count")},
            {"num_experts_per_tok", k.size("expert_used_count")},
            {"norm_topk_prob", false}});
  return c;
}

Json qwen2moe_gguf(const GgufKeys& k) {
  Json c = qwen_moe_gguf(k, "Qwen2MoeForCausalLM", "qwen2_moe", false);
  c["qkv_bias"] = k.has_bias("attn_q");
  c["shared_expert_intermediate_size"] = k.size("expert_shared_feed_forward_length");
  return c;
}

Json qwen3moe_gguf(const GgufKeys& k) {
  Json c = qwen_moe_gguf(k, "Qwen3MoeForCausalLM", "qwen3_moe", true);
  c["attention_bias"] = k.has_bias("attn_q");
  return c;
}

/// One flag a block: does it have the window? All but every sixth where the file does not say, as in every Gemma 3.
std::vector<int64_t> windowed_blocks(const GgufKeys& k) {
  const auto blocks = size_t(k.size("block_count"));
  if (!gguf_window(k)) return std::vector<int64_t>(blocks, 0);
  const std::string key = k.key("attention.sliding_window_pattern");
  if (k.file().has(key) && k.file().metadata().at(key).type == GgufType::array) {
    auto flags = k.file().integers(key);
    if (flags.size() != blocks)
      k.bad("attention.sliding_window_pattern", fmt::format("a flag for each of {} blocks", blocks), flags.size());
    return flags;
  }
  const auto period = size_t(k.size("attention.sliding_window_pattern", 6));
  std::vector<int64_t> flags(blocks);
  for (size_t i = 0; i < blocks; ++i) flags[i] = (i + 1) % period != 0;
  return flags;
}

/// The divisor under the root of q.k's scale. Only the 27B model, the one with 62 blocks, has another than head_dim.
int64_t query_scalar(const GgufKeys& k) {
  return k.size("block_count") == 62 ? k.size("embedding_length") / k.size("attention.head_count") : gguf_head_dim(k);
}

Json gemma3_gguf(const GgufKeys& k) {
  if (k.text("rope.scaling.type", "none") == "yarn")  // of blocks with a window too, or not: programs differ
    k.bad("rope.scaling.type", "none or linear in this family", "yarn");
  refuse_gguf_experts(k);
  Json c = gguf_config_of(k, "Gemma3ForCausalLM", "gemma3_text");
  c["hidden_activation"] = "gelu_pytorch_tanh";
  c["attention_bias"] = false;
  c["query_pre_attn_scalar"] = query_scalar(k);
  c["rope_theta"] = k.decimal("rope.freq_base", 1e6);
  c["rope_local_base_freq"] = k.decimal("rope.freq_base_swa", 10000);
  c["final_logit_softcapping"] =
      k.has("final_logit_softcapping") ? Json(k.decimal("final_logit_softcapping")) : Json(nullptr);
  if (gguf_window(k)) c["sliding_window"] = gguf_window(k);
  for (const int64_t w : windowed_blocks(k)) c["layer_types"].push_back(w ? "sliding_attention" : "full_attention");
  return c;
}

constexpr std::string_view kGgufMixture[] = {"expert_feed_forward_length", "expert_shared_feed_forward_length"};
// Levels of what is seen are added to the first blocks' output.
constexpr std::string_view kGgufSeeing[] = {"rope.dimension_sections", "n_deepstack_layers",
                                            "expert_feed_forward_length"};
constexpr std::string_view kGgufGraniteKeys[] = {"embedding_scale", "residual_scale", "attention.scale", "logit_scale",
                                                 "expert_shared_feed_forward_length"};
constexpr std::string_view kGgufLlamaKeys[] = {"attention.sliding_window", "tensor_data_layout"};
constexpr std::string_view kGgufDivisors[] = {"rope_freqs.weight"};
constexpr std::string_view kGgufGemma3Keys[] = {"attention.sliding_window", "attention.sliding_window_pattern",
                                                "rope.freq_base_swa", "final_logit_softcapping"};

}  // namespace

std::span<const GgufFamily> gguf_llama_families() {
  static constexpr GgufFamily kTable[] = {
      {.name = "llama", .config = llama_gguf, .keys = kGgufLlamaKeys, .tensors = kGgufDivisors, .pairs = true},
      {.name = "qwen2", .config = qwen2_gguf},
      {.name = "qwen3", .config = qwen3_gguf},
      {.name = "qwen2vl", .config = qwen2vl_gguf, .keys = kGgufSeeing},
      {.name = "qwen3vl", .config = qwen3vl_gguf, .keys = kGgufSeeing},
      {.name = "qwen2moe", .config = qwen2moe_gguf, .keys = kGgufMixture},
      {.name = "qwen3moe", .config = qwen3moe_gguf, .keys = kGgufMixture},
      {.name = "qwen3vlmoe", .config = qwen3moe_gguf, .keys = kGgufSeeing},
      {.name = "olmoe", .config = olmoe_gguf},
      {.name = "granite", .config = granite_gguf, .keys = kGgufGraniteKeys, .pairs = true},
      {.name = "granitemoe", .config = granitemoe_gguf, .keys = kGgufGraniteKeys, .pairs = true},
      {.name = "gemma3", .config = gemma3_gguf, .keys = kGgufGemma3Keys}};
  return kTable;
}

}  // namespace awq
