#include "model/arch/gguf.h"

#include <algorithm>
#include <cmath>

namespace awq {
namespace {

using Json = nlohmann::json;

constexpr int kMaxBlocks = 1024;

int64_t gguf_vocabulary_size(const GgufKeys& k) {
  const GgufTensor& embed = k.file().at("token_embd.weight");
  const int64_t rows = embed.shape[0];
  if (k.size("vocab_size", rows) != rows)
    k.bad("vocab_size", fmt::format("{}, as token_embd.weight has rows", rows), k.size("vocab_size"));
  return rows;
}

/// Linear or YaRN scaling as config.json's `rope_scaling`; null where there is none.
Json gguf_scaling(const GgufKeys& k) {
  const std::string_view type = k.text("rope.scaling.type", "linear");
  if (type == "none") return nullptr;
  if (type != "linear" && type != "yarn")
    k.bad("rope.scaling.type", "none, linear or yarn (what this version implements)", type);
  const double factor = k.decimal("rope.scaling.factor", k.decimal("rope.scale_linear", 1));
  if (factor == 0 || factor == 1) return nullptr;
  if (type == "linear") return {{"rope_type", type}, {"factor", factor}};
  Json yarn = {{"rope_type", type},
               {"factor", factor},
               {"original_max_position_embeddings", k.size("rope.scaling.original_context_length")}};
  for (const char* beta : {"beta_fast", "beta_slow"})
    if (const std::string key = std::string("rope.scaling.yarn_") + beta; k.has(key)) yarn[beta] = k.decimal(key);
  return yarn;
}

/// Llama 3.1's scaling is stored as one divisor per pair of channels, not as its parameters. All published models use
/// low and high frequency factors 1 and 4 and 8,192 original positions; the factor is the largest divisor. Whether that
/// is the rule behind the stored numbers is then checked, so nothing is guessed. The divisors were computed in single
/// precision, where the ramp's rounding of about 4e-7 grows with the factor, to 1e-5 for factor 32.
Json gguf_llama3_scaling(const GgufKeys& k, const Tensor& divisors, const Json& config) {
  const auto d = divisors.as<float>();
  RopeSpec rope{.theta = config["rope_theta"].get<float>(), .dims = config["head_dim"].get<int>()};
  const std::vector<float> plain = rope.frequencies();
  rope.scaling = RopeScaling::llama3;
  rope.factor = *std::ranges::max_element(d);
  rope.low_freq_factor = 1, rope.high_freq_factor = 4, rope.original_context = 8192;
  const std::vector<float> scaled = rope.frequencies();
  for (size_t i = 0; i < d.size(); ++i)
    if (!(std::abs(d[i] * scaled[i] / plain[i] - 1) < 1e-4f))
      fail("gguf",
           "{}: rope_freqs.weight is not Llama 3.1's scaling by {} of 8192 positions (divisor {} is {}, expected {}); "
           "no other kind is implemented",
           k.file().path().string(), rope.factor, i, d[i], plain[i] / scaled[i]);
  return {{"rope_type", "llama3"},
          {"factor", rope.factor},
          {"low_freq_factor", 1.0},
          {"high_freq_factor", 4.0},
          {"original_max_position_embeddings", 8192}};
}

}  // namespace

int64_t GgufKeys::size(std::string_view name) const {
  const int64_t n = file_.integer(key(name));
  if (n < 1 || n > INT32_MAX) bad(name, "a positive 32-bit number", n);
  return n;
}

int64_t GgufKeys::whole(std::string_view name) const { return file_.integer(key(name), 0) == 0 ? 0 : size(name); }

std::span<const std::string_view> gguf_common_keys() {
  // "rope.scaling.finetuned" only informs; what has no experts may say so.
  static constexpr std::string_view kKeys[] = {"block_count",
                                               "context_length",
                                               "embedding_length",
                                               "feed_forward_length",
                                               "vocab_size",
                                               "attention.head_count",
                                               "attention.head_count_kv",
                                               "attention.key_length",
                                               "attention.value_length",
                                               "attention.layer_norm_rms_epsilon",
                                               "rope.dimension_count",
                                               "rope.freq_base",
                                               "rope.scale_linear",
                                               "rope.scaling.type",
                                               "rope.scaling.factor",
                                               "rope.scaling.original_context_length",
                                               "rope.scaling.yarn_beta_fast",
                                               "rope.scaling.yarn_beta_slow",
                                               "rope.scaling.finetuned",
                                               "expert_count",
                                               "expert_used_count"};
  return kKeys;
}

void refuse_gguf_experts(const GgufKeys& k) {
  if (k.whole("expert_count") != 0)
    k.bad("expert_count", "absent or 0 (this family has no mixtures of experts)", k.whole("expert_count"));
}

int64_t gguf_head_dim(const GgufKeys& k) {
  const int64_t dim = k.size("embedding_length"), heads = k.size("attention.head_count");
  if (!k.has("attention.key_length") && dim % heads)
    k.bad("embedding_length", fmt::format("a multiple of the {} heads", heads), dim);
  const int64_t n = k.size("attention.key_length", dim / heads);
  for (std::string_view same : {"attention.value_length", "rope.dimension_count"})
    if (k.size(same, n) != n)
      k.bad(same, fmt::format("{}, the size of a head (nothing else is implemented)", n), k.size(same));
  return n;
}

Json gguf_partial_rope(const GgufKeys& k) {
  const int64_t dim = k.size("attention.key_length", k.size("embedding_length") / k.size("attention.head_count"));
  const int64_t rotated = k.size("rope.dimension_count", dim);
  if (rotated > dim) k.bad("rope.dimension_count", fmt::format("at most {}, the size of a head", dim), rotated);
  if (k.size("attention.value_length", dim) != dim)
    k.bad("attention.value_length", fmt::format("{}, the size of a head", dim), k.size("attention.value_length"));
  return {{"head_dim", dim}, {"partial_rotary_factor", double(rotated) / double(dim)}};
}

Json gguf_sizes(const GgufKeys& k, std::string_view architecture, std::string_view model_type) {
  const int64_t heads = k.size("attention.head_count");
  Json c = {{"architectures", {architecture}},
            {"model_type", model_type},
            {"hidden_size", k.size("embedding_length")},
            {"intermediate_size", k.size("feed_forward_length")},
            {"num_hidden_layers", k.size("block_count")},
            {"num_attention_heads", heads},
            {"num_key_value_heads", k.size("attention.head_count_kv", heads)},
            {"max_position_embeddings", k.size("context_length")},
            {"rms_norm_eps", k.decimal(k.has("attention.layer_norm_epsilon") ? "attention.layer_norm_epsilon"
                                                                             : "attention.layer_norm_rms_epsilon")},
            {"vocab_size", gguf_vocabulary_size(k)},
            {"rope_theta", k.decimal("rope.freq_base", 10000)},
            {"rope_scaling", gguf_scaling(k)},
            {"tie_word_embeddings", k.file().find("output.weight") == nullptr}};
  if (k.size("block_count") > kMaxBlocks)
    k.bad("block_count", fmt::format("at most {}", kMaxBlocks), k.size("block_count"));
  return c;
}

Json gguf_config_of(const GgufKeys& k, std::string_view architecture, std::string_view model_type) {
  Json c = gguf_sizes(k, architecture, model_type);
  c["head_dim"] = gguf_head_dim(k);
  return c;
}

void apply_gguf_divisors(const GgufKeys& k, Json& config) {
  const GgufTensor* t = k.file().find("rope_freqs.weight");
  if (!t) return;
  const Tensor divisors = k.file().tensor(*t).to(DType::f32);
  if (divisors.shape() != Shape{config["head_dim"].get<int64_t>() / 2})
    fail("gguf", "{}: rope_freqs.weight is {}, expected one divisor per pair of a head's {} channels",
         k.file().path().string(), divisors.shape().text(), config["head_dim"].dump());
  if (std::ranges::all_of(divisors.as<float>(), [](float d) { return d == 1.f; })) return;
  if (!config["rope_scaling"].is_null())
    k.bad("rope.scaling.type", "none beside rope_freqs.weight", k.text("rope.scaling.type", "linear"));
  config["rope_scaling"] = gguf_llama3_scaling(k, divisors, config);
}

int64_t gguf_window(const GgufKeys& k) {
  return k.file().integer(k.key("attention.sliding_window"), 0) == 0 ? 0 : k.size("attention.sliding_window");
}

}  // namespace awq
