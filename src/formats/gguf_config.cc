#include "formats/gguf_config.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "model/spec.h"

namespace awq {
namespace {

using nlohmann::json;

constexpr int kMaxBlocks = 1024;

/// Reads the keys below "<architecture>.".
class Keys {
 public:
  explicit Keys(const Gguf& file) : file_(file), arch_(file.text("general.architecture")) {}
  const Gguf& file() const { return file_; }
  std::string_view arch() const { return arch_; }
  std::string key(std::string_view name) const { return arch_ + "." + std::string(name); }
  bool has(std::string_view name) const { return file_.has(key(name)); }
  int64_t size(std::string_view name) const {
    const int64_t n = file_.integer(key(name));
    if (n < 1 || n > INT32_MAX) bad(name, "a positive 32-bit number", n);
    return n;
  }
  int64_t size(std::string_view name, int64_t missing) const { return has(name) ? size(name) : missing; }
  std::string_view text(std::string_view name, std::string_view missing) const {
    return file_.text(key(name), missing);
  }
  /// The shortest decimal that reads back as the same float: 1e-05, not 9.99999974e-06.
  double decimal(std::string_view name) const { return std::stod(fmt::format("{}", float(file_.number(key(name))))); }
  double decimal(std::string_view name, double missing) const { return has(name) ? decimal(name) : missing; }
  template <class T>
  [[noreturn]] void bad(std::string_view name, std::string_view expected, const T& got) const {
    fail("gguf", "{}: the metadata \"{}\" should be {}, but is {}", file_.path().string(), key(name), expected, got);
  }

 private:
  const Gguf& file_;
  std::string arch_;
};

// Keys below "<architecture>." that every family may have. The last one only informs.
constexpr std::string_view kCommonKeys[] = {"block_count",
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
                                            "expert_count",
                                            "expert_used_count",
                                            "rope.scaling.original_context_length",
                                            "rope.scaling.finetuned"};
constexpr std::string_view kMixtureKeys[] = {"expert_feed_forward_length", "expert_shared_feed_forward_length"};
constexpr std::string_view kGraniteKeys[] = {"embedding_scale", "residual_scale", "attention.scale", "logit_scale",
                                             "expert_shared_feed_forward_length"};
constexpr std::string_view kLlamaKeys[] = {"attention.sliding_window", "tensor_data_layout"};
constexpr std::string_view kGemma3Keys[] = {"attention.sliding_window", "attention.sliding_window_pattern",
                                            "rope.freq_base_swa", "final_logit_softcapping"};

void refuse_unknown_keys(const Keys& k, std::span<const std::string_view> extra) {
  const std::string prefix = k.key("");
  for (const auto& [key, value] : k.file().metadata()) {
    if (!key.starts_with(prefix)) continue;
    const std::string_view name = key.substr(prefix.size());
    if (!std::ranges::count(kCommonKeys, name) && !std::ranges::count(extra, name))
      fail("gguf",
           "{}: the metadata \"{}\" is not understood, and may change what the model computes; this version cannot "
           "read the file",
           k.file().path().string(), key);
  }
}

bool has_experts(const Keys& k) { return k.file().integer(k.key("expert_count"), 0) != 0; }

void refuse_experts(const Keys& k) {
  if (has_experts(k))
    k.bad("expert_count", "absent or 0 (this family has no mixtures of experts)",
          k.file().integer(k.key("expert_count")));
}

int64_t head_dim(const Keys& k) {
  const int64_t dim = k.size("embedding_length"), heads = k.size("attention.head_count");
  if (!k.has("attention.key_length") && dim % heads)
    k.bad("embedding_length", fmt::format("a multiple of the {} heads", heads), dim);
  const int64_t n = k.size("attention.key_length", dim / heads);
  for (std::string_view same : {"attention.value_length", "rope.dimension_count"})
    if (k.size(same, n) != n)
      k.bad(same, fmt::format("{}, the size of a head (nothing else is implemented)", n), k.size(same));
  return n;
}

int64_t vocabulary_size(const Keys& k) {
  const GgufTensor& embed = k.file().at("token_embd.weight");
  const int64_t rows = embed.shape[0];
  if (k.size("vocab_size", rows) != rows)
    k.bad("vocab_size", fmt::format("{}, as token_embd.weight has rows", rows), k.size("vocab_size"));
  return rows;
}

/// Linear or YaRN scaling as config.json's `rope_scaling`; null where there is none.
json scaling(const Keys& k) {
  const std::string_view type = k.text("rope.scaling.type", "linear");
  if (type == "none") return nullptr;
  if (type != "linear" && type != "yarn")
    k.bad("rope.scaling.type", "none, linear or yarn (what this version implements)", type);
  const double factor = k.decimal("rope.scaling.factor", k.decimal("rope.scale_linear", 1));
  if (factor == 0 || factor == 1) return nullptr;
  if (type == "linear") return {{"rope_type", type}, {"factor", factor}};
  return {{"rope_type", type},
          {"factor", factor},
          {"original_max_position_embeddings", k.size("rope.scaling.original_context_length")}};
}

bool has_bias(const Gguf& file, std::string_view name) {
  return file.find(fmt::format("blk.0.{}.bias", name)) != nullptr;
}

json common_config(const Keys& k, std::string_view architecture, std::string_view model_type) {
  const int64_t heads = k.size("attention.head_count");
  json c = {{"architectures", {architecture}},
            {"model_type", model_type},
            {"hidden_size", k.size("embedding_length")},
            {"intermediate_size", k.size("feed_forward_length")},
            {"num_hidden_layers", k.size("block_count")},
            {"num_attention_heads", heads},
            {"num_key_value_heads", k.size("attention.head_count_kv", heads)},
            {"head_dim", head_dim(k)},
            {"max_position_embeddings", k.size("context_length")},
            {"rms_norm_eps", k.decimal("attention.layer_norm_rms_epsilon")},
            {"vocab_size", vocabulary_size(k)},
            {"rope_theta", k.decimal("rope.freq_base", 10000)},
            {"rope_scaling", scaling(k)},
            {"tie_word_embeddings", k.file().find("output.weight") == nullptr}};
  if (k.size("block_count") > kMaxBlocks)
    k.bad("block_count", fmt::format("at most {}", kMaxBlocks), k.size("block_count"));
  c.update(gguf_token_ids(k.file()));
  return c;
}

/// Llama 3.1's scaling is stored as one divisor per pair of channels, not as its parameters. All published models use
/// low and high frequency factors 1 and 4 and 8,192 original positions; the factor is the largest divisor. Whether that
/// is the rule behind the stored numbers is then checked, so nothing is guessed. The divisors were computed in single
/// precision, where the ramp's rounding of about 4e-7 grows with the factor, to 1e-5 for factor 32.
json llama3_scaling(const Keys& k, const Tensor& divisors, const json& config) {
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

void apply_divisors(const Keys& k, json& config) {
  const GgufTensor* t = k.file().find("rope_freqs.weight");
  if (!t) return;
  const Tensor divisors = k.file().tensor(*t).to(DType::f32);
  if (divisors.shape() != Shape{config["head_dim"].get<int64_t>() / 2})
    fail("gguf", "{}: rope_freqs.weight is {}, expected one divisor per pair of a head's {} channels",
         k.file().path().string(), divisors.shape().text(), config["head_dim"].dump());
  if (std::ranges::all_of(divisors.as<float>(), [](float d) { return d == 1.f; })) return;
  if (!config["rope_scaling"].is_null())
    k.bad("rope.scaling.type", "none beside rope_freqs.weight", k.text("rope.scaling.type", "linear"));
  config["rope_scaling"] = llama3_scaling(k, divisors, config);
}

/// 0 where there is none.
int64_t window(const Keys& k) {
  return k.file().integer(k.key("attention.sliding_window"), 0) == 0 ? 0 : k.size("attention.sliding_window");
}

json mixtral_config(const Keys& k) {
  json c = common_config(k, "MixtralForCausalLM", "mixtral");
  c["hidden_act"] = "silu";
  c["num_local_experts"] = k.size("expert_count");
  c["num_experts_per_tok"] = k.size("expert_used_count");
  if (window(k)) c["sliding_window"] = window(k);
  apply_divisors(k, c);
  return c;
}

json llama_config(const Keys& k) {
  if (has_experts(k)) return mixtral_config(k);
  json c =
      window(k) ? common_config(k, "MistralForCausalLM", "mistral") : common_config(k, "LlamaForCausalLM", "llama");
  if (window(k)) c["sliding_window"] = window(k);
  c["hidden_act"] = "silu";
  c["attention_bias"] = has_bias(k.file(), "attn_q");
  c["mlp_bias"] = has_bias(k.file(), "ffn_gate");
  apply_divisors(k, c);
  return c;
}

json qwen_config(const Keys& k, std::string_view architecture) {
  refuse_experts(k);
  json c = common_config(k, architecture, k.arch());
  c["hidden_act"] = "silu";
  c["use_sliding_window"] = false;
  return c;
}

json qwen2_config(const Keys& k) { return qwen_config(k, "Qwen2ForCausalLM"); }

json qwen3_config(const Keys& k) {
  json c = qwen_config(k, "Qwen3ForCausalLM");
  c["attention_bias"] = has_bias(k.file(), "attn_q");
  return c;
}

/// Programs take whether the weights are divided by their sum from the family's name.
json qwen_moe_config(const Keys& k, std::string_view architecture, std::string_view model_type, bool normalized) {
  json c = common_config(k, architecture, model_type);
  c.update({{"hidden_act", "silu"},
            {"use_sliding_window", false},
            {"num_experts", k.size("expert_count")},
            {"num_experts_per_tok", k.size("expert_used_count")},
            {"moe_intermediate_size", k.size("expert_feed_forward_length")},
            {"norm_topk_prob", normalized}});
  return c;
}

void add_granites_scales(const Keys& k, json& c) {
  c.update({{"hidden_act", "silu"},
            {"attention_bias", has_bias(k.file(), "attn_q")},
            {"embedding_multiplier", k.decimal("embedding_scale", 1)},
            {"residual_multiplier", k.decimal("residual_scale", 1)},
            {"attention_multiplier", k.decimal("attention.scale")},
            {"logits_scaling", k.decimal("logit_scale", 1)}});
}

json granite_config(const Keys& k) {
  refuse_experts(k);
  json c = common_config(k, "GraniteForCausalLM", "granite");
  add_granites_scales(k, c);
  c["mlp_bias"] = has_bias(k.file(), "ffn_gate");
  return c;
}

json granitemoe_config(const Keys& k) {
  const int64_t shared = k.size("expert_shared_feed_forward_length", 0);
  json c = shared ? common_config(k, "GraniteMoeSharedForCausalLM", "granitemoeshared")
                  : common_config(k, "GraniteMoeForCausalLM", "granitemoe");
  add_granites_scales(k, c);
  c["num_local_experts"] = k.size("expert_count");
  c["num_experts_per_tok"] = k.size("expert_used_count");
  if (shared) c["shared_intermediate_size"] = shared;
  return c;
}

json olmoe_config(const Keys& k) {
  json c = common_config(k, "OlmoeForCausalLM", "olmoe");
  c.update({{"hidden_act", "silu"},
            {"attention_bias", false},
            {"num_experts", k.size("expert_count")},
            {"num_experts_per_tok", k.size("expert_used_count")},
            {"norm_topk_prob", false}});
  return c;
}

json qwen2moe_config(const Keys& k) {
  json c = qwen_moe_config(k, "Qwen2MoeForCausalLM", "qwen2_moe", false);
  c["qkv_bias"] = has_bias(k.file(), "attn_q");
  c["shared_expert_intermediate_size"] = k.size("expert_shared_feed_forward_length");
  return c;
}

json qwen3moe_config(const Keys& k) {
  json c = qwen_moe_config(k, "Qwen3MoeForCausalLM", "qwen3_moe", true);
  c["attention_bias"] = has_bias(k.file(), "attn_q");
  return c;
}

/// One flag a block: does it have the window? All but every sixth where the file does not say, as in every Gemma 3.
std::vector<int64_t> windowed_blocks(const Keys& k) {
  const auto blocks = size_t(k.size("block_count"));
  if (!window(k)) return std::vector<int64_t>(blocks, 0);
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
int64_t query_scalar(const Keys& k) {
  return k.size("block_count") == 62 ? k.size("embedding_length") / k.size("attention.head_count") : head_dim(k);
}

json gemma3_config(const Keys& k) {
  if (k.text("rope.scaling.type", "none") == "yarn")  // of blocks with a window too, or not: programs differ
    k.bad("rope.scaling.type", "none or linear in this family", "yarn");
  refuse_experts(k);
  json c = common_config(k, "Gemma3ForCausalLM", "gemma3_text");
  c["hidden_activation"] = "gelu_pytorch_tanh";
  c["attention_bias"] = false;
  c["query_pre_attn_scalar"] = query_scalar(k);
  c["rope_theta"] = k.decimal("rope.freq_base", 1e6);
  c["rope_local_base_freq"] = k.decimal("rope.freq_base_swa", 10000);
  c["final_logit_softcapping"] =
      k.has("final_logit_softcapping") ? json(k.decimal("final_logit_softcapping")) : json(nullptr);
  if (window(k)) c["sliding_window"] = window(k);
  for (const int64_t w : windowed_blocks(k)) c["layer_types"].push_back(w ? "sliding_attention" : "full_attention");
  return c;
}

struct Family {
  std::string_view name;  // of general.architecture
  json (*config)(const Keys& k);
  std::span<const std::string_view> keys;  // besides the common ones
};
constexpr Family kFamilies[] = {{"llama", llama_config, kLlamaKeys},
                                {"qwen2", qwen2_config, {}},
                                {"qwen3", qwen3_config, {}},
                                {"qwen2moe", qwen2moe_config, kMixtureKeys},
                                {"qwen3moe", qwen3moe_config, kMixtureKeys},
                                {"olmoe", olmoe_config, {}},
                                {"granite", granite_config, kGraniteKeys},
                                {"granitemoe", granitemoe_config, kGraniteKeys},
                                {"gemma3", gemma3_config, kGemma3Keys}};

}  // namespace

json gguf_config(const Gguf& file) {
  const Keys k(file);
  std::string known;
  for (const Family& f : kFamilies) {
    known += (known.empty() ? "" : ", ") + std::string(f.name);
    if (f.name != k.arch()) continue;
    refuse_unknown_keys(k, f.keys);
    return f.config(k);
  }
  fail("gguf", "{}: the architecture \"{}\" is not known; this version reads {}", file.path().string(), k.arch(),
       known);
}

json gguf_token_ids(const Gguf& file) {
  const auto id_of = [&](std::string_view kind) -> json {
    const std::string key = fmt::format("tokenizer.ggml.{}_token_id", kind);
    if (!file.has(key)) return nullptr;
    const int64_t id = file.integer(key), rows = file.at("token_embd.weight").shape[0];
    if (id < 0 || id >= rows)
      fail("gguf", "{}: the metadata \"{}\" is {}, but there are {} tokens", file.path().string(), key, id, rows);
    return id;
  };
  json ids = json::object(), ends = json::array();
  if (const json bos = id_of("bos"); !bos.is_null()) ids["bos_token_id"] = bos;
  if (const json pad = id_of("padding"); !pad.is_null()) ids["pad_token_id"] = pad;
  for (const std::string_view kind : {"eos", "eot", "eom"})
    if (const json id = id_of(kind); !id.is_null() && std::ranges::count(ends, id) == 0) ends.push_back(id);
  if (!ends.empty()) ids["eos_token_id"] = ends.size() == 1 ? ends[0] : ends;
  return ids;
}

}  // namespace awq
