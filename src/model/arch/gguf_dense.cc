// GGUF files of families with one MLP: Gemma 1 and 2, MiniCPM, OLMo 1 to 3, SmolLM3, StarCoder2, Nemotron, Cohere,
// InternLM2, EXAONE 3, Phi-2 and 3, GLM-4, StableLM, GPT-2, GPT-BigCode, GPT-NeoX, BLOOM, MPT, Qwen.
#include <cmath>

#include "model/arch/gguf.h"

namespace awq {
namespace {

using Json = nlohmann::json;

/// Layer norms have their own key in files, and a name of the family's in config.json.
Json layer_norm_gguf(const GgufKeys& k, std::string_view architecture, std::string_view model_type, const char* eps) {
  Json c = gguf_config_of(k, architecture, model_type);
  c[eps] = k.decimal("attention.layer_norm_epsilon");
  return c;
}

Json gemma_gguf(const GgufKeys& k) {
  Json c = gguf_config_of(k, "GemmaForCausalLM", "gemma");
  c["hidden_activation"] = "gelu_pytorch_tanh";
  return c;
}

/// The divisor under the root of q.k's scale is another than a head's size in the 27B model alone, which has 46 blocks.
Json gemma2_gguf(const GgufKeys& k) {
  Json c = gguf_config_of(k, "Gemma2ForCausalLM", "gemma2");
  const bool largest = k.size("block_count") == 46;
  c.update({{"hidden_activation", "gelu_pytorch_tanh"},
            {"query_pre_attn_scalar",
             largest ? k.size("embedding_length") / k.size("attention.head_count") : gguf_head_dim(k)},
            {"sliding_window", k.size("attention.sliding_window", 4096)},
            {"attn_logit_softcapping", k.decimal("attn_logit_softcapping", 50)},
            {"final_logit_softcapping", k.decimal("final_logit_softcapping", 30)}});
  return c;
}

/// What gives the residuals' scale when it is divided by the root of the number of blocks, in single precision.
double minicpm_depth(float scale, int64_t blocks) {
  const float root = std::sqrt(float(blocks)), near = scale * root;
  for (const float v : {near, std::nextafter(near, 0.f), std::nextafter(near, INFINITY)})
    if (v / root == scale) return GgufKeys::shortest(v);
  return GgufKeys::shortest(near);
}

Json minicpm_gguf(const GgufKeys& k) {
  refuse_gguf_experts(k);
  Json c = gguf_config_of(k, "MiniCPMForCausalLM", "minicpm");
  const auto dim = double(k.size("embedding_length"));
  c.update({{"hidden_act", "silu"},
            {"attention_bias", k.has_bias("attn_q")},
            {"scale_emb", k.decimal("embedding_scale", 12)},
            {"dim_model_base", dim / k.decimal("logit_scale", dim / 256)}});
  c["scale_depth"] =
      k.has("residual_scale") ? minicpm_depth(float(k.decimal("residual_scale")), k.size("block_count")) : 1.4;
  return c;
}

Json olmo_gguf(const GgufKeys& k) {
  Json c = layer_norm_gguf(k, "OlmoForCausalLM", "olmo", "layer_norm_eps");
  if (c["layer_norm_eps"] != 1e-5) k.bad("attention.layer_norm_epsilon", "1e-05", c["layer_norm_eps"].dump());
  c.update({{"hidden_act", "silu"}, {"clip_qkv", k.decimal("attention.clamp_kqv", 0)}});
  return c;
}

/// With a window it is OLMo 3, of which every fourth block sees everything.
Json olmo2_gguf(const GgufKeys& k) {
  const int64_t window = gguf_window(k);
  Json c = gguf_config_of(k, window ? "Olmo3ForCausalLM" : "Olmo2ForCausalLM", window ? "olmo3" : "olmo2");
  c["hidden_act"] = "silu";
  if (window) c["sliding_window"] = window;
  return c;
}

/// Every fourth block is not rotated, which files do not say.
Json smollm3_gguf(const GgufKeys& k) {
  Json c = gguf_config_of(k, "SmolLM3ForCausalLM", "smollm3");
  c.update({{"hidden_act", "silu"}, {"no_rope_layer_interval", 4}});
  return c;
}

Json starcoder2_gguf(const GgufKeys& k) {
  Json c = layer_norm_gguf(k, "Starcoder2ForCausalLM", "starcoder2", "norm_epsilon");
  c.update({{"hidden_act", "gelu_pytorch_tanh"}, {"use_bias", k.has_bias("attn_q")}});
  if (gguf_window(k)) c["sliding_window"] = gguf_window(k);
  return c;
}

/// Of heads of which a part is rotated.
Json partly_rotated_gguf(const GgufKeys& k, std::string_view architecture, std::string_view model_type) {
  Json c = gguf_sizes(k, architecture, model_type);
  c.update(gguf_partial_rope(k));
  return c;
}

Json nemotron_gguf(const GgufKeys& k) {
  Json c = partly_rotated_gguf(k, "NemotronForCausalLM", "nemotron");
  c.update({{"hidden_act", "relu2"},
            {"norm_eps", k.decimal("attention.layer_norm_epsilon")},
            {"attention_bias", k.has_bias("attn_q")},
            {"mlp_bias", k.has_bias("ffn_up")}});
  return c;
}

Json stablelm_gguf(const GgufKeys& k) {
  Json c = partly_rotated_gguf(k, "StableLmForCausalLM", "stablelm");
  c.update({{"hidden_act", "silu"},
            {"layer_norm_eps", k.decimal("attention.layer_norm_epsilon")},
            {"use_qkv_bias", k.has_bias("attn_q")},
            {"use_parallel_residual", !k.has_weight("ffn_norm")}});
  return c;
}

Json phi2_gguf(const GgufKeys& k) {
  Json c = partly_rotated_gguf(k, "PhiForCausalLM", "phi");
  c.update({{"hidden_act", "gelu_new"}, {"layer_norm_eps", k.decimal("attention.layer_norm_epsilon")}});
  return c;
}

Json cohere_gguf(const GgufKeys& k) {
  Json c = layer_norm_gguf(k, "CohereForCausalLM", "cohere", "layer_norm_eps");
  c.update({{"hidden_act", "silu"},
            {"use_qk_norm", k.has_weight("attn_q_norm")},
            {"logit_scale", k.decimal("logit_scale")}});
  return c;
}

/// Every fourth block sees everything.
Json cohere2_gguf(const GgufKeys& k) {
  Json c = layer_norm_gguf(k, "Cohere2ForCausalLM", "cohere2", "layer_norm_eps");
  c.update({{"hidden_act", "silu"},
            {"sliding_window", k.size("attention.sliding_window")},
            {"sliding_window_pattern", 4},
            {"logit_scale", k.decimal("logit_scale")}});
  return c;
}

Json internlm2_gguf(const GgufKeys& k) {
  Json c = gguf_config_of(k, "InternLM2ForCausalLM", "internlm2");
  c.update({{"hidden_act", "silu"}, {"bias", k.has_bias("attn_q")}});
  return c;
}

Json exaone_gguf(const GgufKeys& k) {
  Json c = gguf_config_of(k, "ExaoneForCausalLM", "exaone");
  c.update({{"activation_function", "silu"},
            {"num_layers", c["num_hidden_layers"]},
            {"layer_norm_epsilon", c["rms_norm_eps"]}});
  apply_gguf_divisors(k, c);
  return c;
}

Json phi3_gguf(const GgufKeys& k) {
  Json c = partly_rotated_gguf(k, "Phi3ForCausalLM", "phi3");
  c["hidden_act"] = "silu";
  if (gguf_window(k)) c["sliding_window"] = gguf_window(k);
  return c;
}

Json glm_gguf(const GgufKeys& k, std::string_view architecture, std::string_view model_type) {
  Json c = partly_rotated_gguf(k, architecture, model_type);
  c.update({{"hidden_act", "silu"}, {"attention_bias", k.has_bias("attn_q") || k.has_bias("attn_qkv")}});
  return c;
}

Json chatglm_gguf(const GgufKeys& k) { return glm_gguf(k, "GlmForCausalLM", "glm"); }
Json glm4_gguf(const GgufKeys& k) { return glm_gguf(k, "Glm4ForCausalLM", "glm4"); }

/// GPT-2's names of sizes.
Json gpt2_sizes(const GgufKeys& k, std::string_view architecture, std::string_view model_type, const char* act) {
  Json c = layer_norm_gguf(k, architecture, model_type, "layer_norm_epsilon");
  c.update({{"activation_function", act},
            {"n_embd", c["hidden_size"]},
            {"n_head", c["num_attention_heads"]},
            {"n_inner", c["intermediate_size"]},
            {"n_layer", c["num_hidden_layers"]},
            {"n_positions", c["max_position_embeddings"]}});
  return c;
}

Json gpt2_gguf(const GgufKeys& k) { return gpt2_sizes(k, "GPT2LMHeadModel", "gpt2", "gelu_new"); }

Json starcoder_gguf(const GgufKeys& k) {
  Json c = gpt2_sizes(k, "GPTBigCodeForCausalLM", "gpt_bigcode", "gelu_pytorch_tanh");
  c["multi_query"] = c["num_key_value_heads"] == 1;
  return c;
}

Json neox_gguf(const GgufKeys& k) {
  Json c = partly_rotated_gguf(k, "GPTNeoXForCausalLM", "gpt_neox");
  c.update({{"hidden_act", "gelu"},
            {"layer_norm_eps", k.decimal("attention.layer_norm_epsilon")},
            {"use_parallel_residual", k.flag("use_parallel_residual")}});
  return c;
}

Json bloom_gguf(const GgufKeys& k) {
  Json c = layer_norm_gguf(k, "BloomForCausalLM", "bloom", "layer_norm_epsilon");
  c.update({{"n_head", c["num_attention_heads"]},
            {"n_inner", c["intermediate_size"]},
            {"n_layer", c["num_hidden_layers"]},
            {"seq_length", c["max_position_embeddings"]}});
  return c;
}

Json mpt_gguf(const GgufKeys& k) {
  if (const double bias = k.decimal("attention.max_alibi_bias", 8); bias != 8)
    k.bad("attention.max_alibi_bias", "8", bias);
  Json c = layer_norm_gguf(k, "MPTForCausalLM", "mpt", "layer_norm_epsilon");
  const int64_t dim = k.size("embedding_length"), width = k.size("feed_forward_length");
  if (width % dim) k.bad("feed_forward_length", fmt::format("a multiple of {}", dim), width);
  c.update({{"d_model", dim},
            {"expansion_ratio", width / dim},
            {"n_heads", c["num_attention_heads"]},
            {"n_layers", c["num_hidden_layers"]},
            {"max_seq_len", c["max_position_embeddings"]},
            {"attn_config", {{"alibi", true}, {"clip_qkv", k.decimal("attention.clamp_kqv", 0)}}}});
  return c;
}

/// Files count the MLP's rows as config.json does: gate's and up's together.
Json qwen1_gguf(const GgufKeys& k) {
  Json c = gguf_config_of(k, "QWenLMHeadModel", "qwen");
  c.update({{"layer_norm_epsilon", c["rms_norm_eps"]},
            {"kv_channels", c["head_dim"]},
            {"rotary_emb_base", c["rope_theta"]},
            {"seq_length", c["max_position_embeddings"]}});
  return c;
}

constexpr std::string_view kGgufLayerNorm[] = {"attention.layer_norm_epsilon"};
constexpr std::string_view kGgufGemma2Keys[] = {"attention.sliding_window", "attn_logit_softcapping",
                                                "final_logit_softcapping"};
constexpr std::string_view kGgufMiniCpmKeys[] = {"embedding_scale", "residual_scale", "logit_scale"};
constexpr std::string_view kGgufClamped[] = {"attention.layer_norm_epsilon", "attention.clamp_kqv",
                                             "attention.max_alibi_bias"};
constexpr std::string_view kGgufWindowed[] = {"attention.layer_norm_epsilon", "attention.sliding_window"};
constexpr std::string_view kGgufParallel[] = {"attention.layer_norm_epsilon", "use_parallel_residual"};
constexpr std::string_view kGgufCohereKeys[] = {"attention.layer_norm_epsilon", "logit_scale",
                                                "attention.sliding_window"};
constexpr std::string_view kGgufWindow[] = {"attention.sliding_window"};
constexpr std::string_view kGgufExaoneTensors[] = {"rope_freqs.weight"};

}  // namespace

std::span<const GgufFamily> gguf_dense_families() {
  static constexpr GgufFamily kTable[] = {
      {.name = "gemma", .config = gemma_gguf},
      {.name = "gemma2", .config = gemma2_gguf, .keys = kGgufGemma2Keys},
      {.name = "minicpm", .config = minicpm_gguf, .keys = kGgufMiniCpmKeys, .pairs = true},
      {.name = "olmo", .config = olmo_gguf, .keys = kGgufClamped, .pairs = true},
      {.name = "olmo2", .config = olmo2_gguf, .keys = kGgufWindow},
      {.name = "smollm3", .config = smollm3_gguf, .pairs = true},
      {.name = "starcoder2", .config = starcoder2_gguf, .keys = kGgufWindowed},
      {.name = "nemotron", .config = nemotron_gguf, .keys = kGgufLayerNorm},
      {.name = "stablelm", .config = stablelm_gguf, .keys = kGgufParallel},
      {.name = "command-r", .config = cohere_gguf, .keys = kGgufCohereKeys},
      {.name = "cohere2", .config = cohere2_gguf, .keys = kGgufCohereKeys},
      {.name = "internlm2", .config = internlm2_gguf, .pairs = true},
      {.name = "exaone", .config = exaone_gguf, .tensors = kGgufExaoneTensors},
      {.name = "phi2", .config = phi2_gguf, .keys = kGgufLayerNorm},
      {.name = "phi3", .config = phi3_gguf, .keys = kGgufWindow, .fused_qkv = true, .fused_gate = true},
      {.name = "chatglm", .config = chatglm_gguf, .fused_gate = true},
      {.name = "glm4", .config = glm4_gguf, .fused_gate = true},
      {.name = "gpt2", .config = gpt2_gguf, .keys = kGgufLayerNorm, .fused_qkv = true},
      {.name = "starcoder", .config = starcoder_gguf, .keys = kGgufLayerNorm, .fused_qkv = true},
      {.name = "gptneox", .config = neox_gguf, .keys = kGgufParallel, .fused_qkv = true},
      {.name = "bloom", .config = bloom_gguf, .keys = kGgufLayerNorm, .fused_qkv = true},
      {.name = "mpt", .config = mpt_gguf, .keys = kGgufClamped, .fused_qkv = true},
      {.name = "qwen", .config = qwen1_gguf, .fused_qkv = true}};
  return kTable;
}

}  // namespace awq
