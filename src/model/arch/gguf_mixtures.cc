// GGUF files of families with latent attention, or with experts behind dense blocks: DeepSeek-V2 and V3, MiniCPM 3,
// GLM-4.5, gpt-oss.
#include <cmath>

#include "model/arch/gguf.h"

namespace awq {
namespace {

using Json = nlohmann::json;

// As "expert_gating_func" numbers them.
constexpr int64_t kGgufSoftmax = 1, kGgufSigmoid = 2;

/// Newer files give the sizes that queries have where keys are not expanded, and these under other names.
Json gguf_latent(const GgufKeys& k) {
  const bool split = k.has("attention.key_length_mla");
  const int64_t heads = k.size("attention.head_count"), rotated = k.size("rope.dimension_count"),
                key = k.size(split ? "attention.key_length_mla" : "attention.key_length");
  if (rotated >= key) k.bad("rope.dimension_count", fmt::format("less than {}, the size of a head", key), rotated);
  const int64_t groups = split ? 1 : heads;
  if (k.size("attention.head_count_kv", groups) != groups)
    k.bad("attention.head_count_kv", fmt::format("{}", groups), k.size("attention.head_count_kv"));
  const char* value = split ? "attention.value_length_mla" : "attention.value_length";
  return {{"num_key_value_heads", heads},
          {"q_lora_rank", k.has("attention.q_lora_rank") ? Json(k.size("attention.q_lora_rank")) : Json(nullptr)},
          {"kv_lora_rank", k.size("attention.kv_lora_rank")},
          {"qk_nope_head_dim", key - rotated},
          {"qk_rope_head_dim", rotated},
          {"v_head_dim", k.size(value, k.size("embedding_length") / heads)},
          {"hidden_act", "silu"}};
}

/// Experts behind the first blocks; files may end with blocks for predicting further tokens.
Json gguf_experts(const GgufKeys& k) {
  const int64_t blocks = k.size("block_count"), further = k.whole("nextn_predict_layers");
  if (further >= blocks) k.bad("nextn_predict_layers", fmt::format("less than {}", blocks), further);
  return {{"num_hidden_layers", blocks - further},
          {"num_nextn_predict_layers", further},
          {"n_routed_experts", k.size("expert_count")},
          {"num_experts_per_tok", k.size("expert_used_count")},
          {"moe_intermediate_size", k.size("expert_feed_forward_length")},
          {"n_shared_experts", k.whole("expert_shared_count")},
          {"first_k_dense_replace", k.whole("leading_dense_block_count")},
          {"routed_scaling_factor", k.decimal("expert_weights_scale", 1)},
          {"norm_topk_prob", k.flag("expert_weights_norm")},
          {"n_group", k.size("expert_group_count", 1)},
          {"topk_group", k.size("expert_group_used_count", 1)}};
}

bool gguf_sigmoid(const GgufKeys& k, int64_t missing) {
  const int64_t function = k.has("expert_gating_func") ? k.size("expert_gating_func") : missing;
  if (function != kGgufSoftmax && function != kGgufSigmoid)
    k.bad("expert_gating_func", "1 (softmax) or 2 (sigmoid)", function);
  return function == kGgufSigmoid;
}

/// The multiplier is a tenth of what config.json has twice: of rotated channels, where the two cancel, and of scores.
void apply_gguf_multiplier(const GgufKeys& k, Json& c) {
  const char* key = "rope.scaling.yarn_log_multiplier";
  if (!c["rope_scaling"].is_object() || !k.has(key)) return;
  c["rope_scaling"]["mscale"] = c["rope_scaling"]["mscale_all_dim"] = GgufKeys::shortest(float(k.decimal(key) * 10));
}

Json deepseek2_gguf(const GgufKeys& k) {
  const bool sigmoid = gguf_sigmoid(k, kGgufSoftmax);
  Json c = gguf_sizes(k, sigmoid ? "DeepseekV3ForCausalLM" : "DeepseekV2ForCausalLM",
                      sigmoid ? "deepseek_v3" : "deepseek_v2");
  c.update(gguf_latent(k));
  c.update(gguf_experts(k));
  c["scoring_func"] = sigmoid ? "sigmoid" : "softmax";
  c["topk_method"] = sigmoid ? "noaux_tc" : k.size("expert_group_count", 1) > 1 ? "group_limited_greedy" : "greedy";
  apply_gguf_multiplier(k, c);
  return c;
}

Json glm4_moe_gguf(const GgufKeys& k) {
  if (!gguf_sigmoid(k, kGgufSigmoid)) k.bad("expert_gating_func", "2 (sigmoid)", kGgufSoftmax);
  Json c = gguf_sizes(k, "Glm4MoeForCausalLM", "glm4_moe");
  c.update(gguf_partial_rope(k));
  c.update(gguf_experts(k));
  c.update(
      {{"hidden_act", "silu"}, {"attention_bias", k.has_bias("attn_q")}, {"use_qk_norm", k.has_weight("attn_q_norm")}});
  return c;
}

/// The bound and the factor of the MLP are the published models', as files do not have them; so are the blocks with a
/// window, every second one, and that YaRN's ramp begins and ends between channels.
Json gpt_oss_gguf(const GgufKeys& k) {
  Json c = gguf_config_of(k, "GptOssForCausalLM", "gpt_oss");
  c.update({{"hidden_act", "silu"},
            {"attention_bias", k.has_bias("attn_q")},
            {"intermediate_size", k.size("expert_feed_forward_length")},
            {"num_local_experts", k.size("expert_count")},
            {"num_experts_per_tok", k.size("expert_used_count")},
            {"sliding_window", k.size("attention.sliding_window")},
            {"swiglu_limit", 7.0}});
  if (c["rope_scaling"].is_object()) c["rope_scaling"]["truncate"] = false;
  return c;
}

std::vector<double> gguf_factors(const GgufKeys& k, const char* name, int64_t pairs) {
  const Tensor t = k.file().tensor(name).to(DType::f32);
  if (t.shape() != Shape{pairs})
    fail("gguf", "{}: {} is {}, expected {} factors", k.file().path().string(), name, t.shape().text(), pairs);
  std::vector<double> factors;
  for (const float f : t.as<float>()) factors.push_back(GgufKeys::shortest(f));
  return factors;
}

/// The scales of embeddings, residuals and the head are the published model's, as files do not have them.
Json minicpm3_gguf(const GgufKeys& k) {
  refuse_gguf_experts(k);
  Json c = gguf_sizes(k, "MiniCPM3ForCausalLM", "minicpm3");
  c.update(gguf_latent(k));
  c.update({{"scale_emb", 12}, {"scale_depth", 1.4}, {"dim_model_base", 256}});
  if (!k.file().find("rope_factors_long.weight")) return c;
  const int64_t pairs = c["qk_rope_head_dim"].get<int64_t>() / 2, context = k.size("context_length");
  c["rope_scaling"] = {{"rope_type", "longrope"},
                       {"short_factor", gguf_factors(k, "rope_factors_short.weight", pairs)},
                       {"long_factor", gguf_factors(k, "rope_factors_long.weight", pairs)},
                       {"original_max_position_embeddings", k.size("rope.scaling.original_context_length", context)}};
  return c;
}

constexpr std::string_view kGgufDeepSeek2Keys[] = {"attention.q_lora_rank",
                                                   "attention.kv_lora_rank",
                                                   "attention.key_length_mla",
                                                   "attention.value_length_mla",
                                                   "rope.scaling.yarn_log_multiplier",
                                                   "leading_dense_block_count",
                                                   "expert_feed_forward_length",
                                                   "expert_shared_count",
                                                   "expert_weights_scale",
                                                   "expert_weights_norm",
                                                   "expert_gating_func",
                                                   "expert_group_count",
                                                   "expert_group_used_count",
                                                   "nextn_predict_layers"};
constexpr std::string_view kGgufGlm4MoeKeys[] = {
    "leading_dense_block_count", "expert_feed_forward_length", "expert_shared_count",
    "expert_weights_scale",      "expert_weights_norm",        "expert_gating_func",
    "expert_group_count",        "expert_group_used_count",    "nextn_predict_layers"};
constexpr std::string_view kGgufGptOssKeys[] = {"attention.sliding_window", "expert_feed_forward_length"};
constexpr std::string_view kGgufMiniCpm3Keys[] = {"attention.q_lora_rank", "attention.kv_lora_rank"};
constexpr std::string_view kGgufFactors[] = {"rope_factors_long.weight", "rope_factors_short.weight"};
// The norm before the MLP has the name of one behind the attention.
constexpr TensorName kGgufMlpNorm[] = {{Role::mlp_norm, "post_attention_norm"}};

}  // namespace

std::span<const GgufFamily> gguf_mixture_families() {
  static constexpr GgufFamily kTable[] = {
      {.name = "deepseek2", .config = deepseek2_gguf, .keys = kGgufDeepSeek2Keys},
      {.name = "glm4moe", .config = glm4_moe_gguf, .keys = kGgufGlm4MoeKeys, .names = kGgufMlpNorm},
      {.name = "gpt-oss", .config = gpt_oss_gguf, .keys = kGgufGptOssKeys, .names = kGgufMlpNorm},
      {.name = "minicpm3", .config = minicpm3_gguf, .keys = kGgufMiniCpm3Keys, .tensors = kGgufFactors}};
  return kTable;
}

}  // namespace awq
