#include "model/arch/config.h"

#include <cmath>

namespace awq {
namespace {

[[noreturn]] void bad(std::string_view key, std::string_view expected, const nlohmann::json& got) {
  fail("config", "config.json: \"{}\" should be {}, but is {}; is the file complete and of this model?", key, expected,
       got.dump());
}

void check_sizes(const BlockSpec& b) {
  const AttentionSpec& a = b.attention;
  if (a.heads % a.kv_heads)
    fail("config", "config.json: num_attention_heads ({}) is no multiple of num_key_value_heads ({})", a.heads,
         a.kv_heads);
  if (a.head_dim % 2) fail("config", "config.json: head_dim {} is odd; rotary positions need pairs", a.head_dim);
  const int64_t largest = int64_t(1) << 24;  // no model is near; keeps products of two sizes far from overflow
  for (int64_t n : {int64_t(b.dim), int64_t(b.mlp.hidden), int64_t(a.heads) * a.head_dim})
    if (n > largest) fail("config", "config.json: a width of {} is not plausible (limit {})", n, largest);
}

void read_llama3(const Config& s, const nlohmann::json& scaling, RopeSpec& r) {
  r.low_freq_factor = s.number("low_freq_factor");
  r.high_freq_factor = s.number("high_freq_factor");
  r.original_context = s.positive("original_max_position_embeddings");
  if (r.high_freq_factor <= r.low_freq_factor) bad("high_freq_factor", "larger than low_freq_factor", scaling);
}

/// What rotated queries and keys are multiplied by: as the file says, else 1 + 0.1 ln factor as in the paper, where
/// `mscale` and `mscale_all_dim` each may weigh the logarithm.
float yarn_attention(const Config& s, float factor) {
  if (s.has("attention_factor")) return s.number("attention_factor");
  const auto scale = [&](float weight) { return 1 + 0.1f * weight * std::log(factor); };
  const float over = s.number("mscale", 0), under = s.number("mscale_all_dim", 0);
  return over != 0 && under != 0 ? scale(over) / scale(under) : scale(1);
}

void read_yarn(const Config& s, const nlohmann::json& scaling, RopeSpec& r) {
  const auto or_default = [&](std::string_view key, float otherwise) {  // 0 counts as absent in the published code
    const float v = s.number(key, 0);
    return v == 0 ? otherwise : v;
  };
  r.original_context = s.positive("original_max_position_embeddings");
  r.beta_fast = or_default("beta_fast", r.beta_fast);
  r.beta_slow = or_default("beta_slow", r.beta_slow);
  r.truncate = s.flag("truncate", true);
  r.attention_factor = yarn_attention(s, r.factor);
  if (!(r.beta_slow > 0 && r.beta_fast >= r.beta_slow)) bad("beta_fast", "at least beta_slow, both above 0", scaling);
  if (!(r.attention_factor > 0)) bad("attention_factor", "above 0", scaling);
}

RopeScaling scaling_of(const std::string& type) {
  if (type == "default") return RopeScaling::none;
  if (type == "linear") return RopeScaling::linear;
  if (type == "dynamic") return RopeScaling::dynamic;
  if (type == "llama3") return RopeScaling::llama3;
  if (type == "yarn") return RopeScaling::yarn;
  bad("rope_type", "default, linear, dynamic, llama3 or yarn (what this version implements)", type);
}

RopeSpec scaled_rope(RopeSpec r, const nlohmann::json& scaling) {
  const Config s(scaling);
  r.scaling = scaling_of(s.text("rope_type", s.text("type", "default")));
  if (r.scaling == RopeScaling::none) return r;
  r.factor = s.number("factor");
  if (!(r.factor >= 1.f)) bad("factor", "at least 1", scaling);
  if (r.scaling == RopeScaling::llama3) read_llama3(s, scaling, r);
  if (r.scaling == RopeScaling::yarn) read_yarn(s, scaling, r);
  return r;
}

/// The object with theta and scaling, whichever way the file spells it.
const nlohmann::json& rope_parameters(const Config& c) {
  const nlohmann::json& p = c.at("rope_parameters");
  c.require_absent_or("rope_scaling", nullptr);  // programs differ in which of the two they follow
  if (p.contains("full_attention")) bad("rope_parameters", "one rule for all layers in this family", p);
  Config(p).require_absent_or("partial_rotary_factor", 1.0);
  return p;
}

}  // namespace

bool Config::has(std::string_view key) const {
  const auto it = json_.find(key);
  return it != json_.end() && !it->is_null();
}

const nlohmann::json& Config::at(std::string_view key) const {
  if (!has(key)) fail("config", "config.json: \"{}\" is missing; is the file complete and of this model?", key);
  return *json_.find(key);
}

int Config::positive(std::string_view key) const {
  const nlohmann::json& v = at(key);
  if (!v.is_number_integer() || v.get<int64_t>() < 1 || v.get<int64_t>() > INT32_MAX)
    bad(key, "a positive whole number", v);
  return v.get<int>();
}

float Config::number(std::string_view key) const {
  const nlohmann::json& v = at(key);
  if (!v.is_number() || !std::isfinite(v.get<float>())) bad(key, "a number", v);
  return v.get<float>();
}

bool Config::flag(std::string_view key, bool missing) const {
  if (!has(key)) return missing;
  if (!at(key).is_boolean()) bad(key, "true or false", at(key));
  return at(key).get<bool>();
}

std::string Config::text(std::string_view key, std::string_view missing) const {
  if (!has(key)) return std::string(missing);
  if (!at(key).is_string()) bad(key, "a string", at(key));
  return at(key).get<std::string>();
}

void Config::require_absent_or(std::string_view key, const nlohmann::json& value) const {
  if (has(key) && at(key) != value)
    bad(key, value.is_null() ? "absent (not implemented)" : value.dump() + " (nothing else is implemented)", at(key));
}

Activation activation_of(const Config& c, std::string_view key) {
  const std::string act = c.text(key, "");
  if (act == "silu" || act == "swish") return Activation::silu;
  if (act == "gelu_pytorch_tanh") return Activation::gelu_tanh;
  bad(key, "silu or gelu_pytorch_tanh (what this version implements)", act);
}

RopeSpec rope_of(const nlohmann::json& json, int head_dim, float default_theta) {
  const Config c(json);
  c.require_absent_or("partial_rotary_factor", 1.0);
  RopeSpec r{.theta = default_theta, .dims = head_dim};
  if (c.has("rope_parameters")) {
    const nlohmann::json& p = rope_parameters(c);
    r.theta = Config(p).number("rope_theta", default_theta);
    r = scaled_rope(r, p);
  } else {
    r.theta = c.number("rope_theta", default_theta);
    if (c.has("rope_scaling")) r = scaled_rope(r, c.at("rope_scaling"));
  }
  if (!(r.theta > 1.f)) bad("rope_theta", "larger than 1", r.theta);
  if (r.scaling == RopeScaling::llama3 || r.scaling == RopeScaling::yarn)
    c.require_absent_or("original_max_position_embeddings", r.original_context);
  return r;
}

BlockSpec llama_block(const Config& c) {
  BlockSpec b;
  b.dim = c.positive("hidden_size");
  b.norm.eps = c.number("rms_norm_eps");
  b.mlp.hidden = c.positive("intermediate_size");
  AttentionSpec& a = b.attention;
  a.heads = c.positive("num_attention_heads");
  a.kv_heads = c.positive("num_key_value_heads", a.heads);
  a.head_dim = c.positive("head_dim", std::max(1, b.dim / a.heads));
  a.query_scale = 1.f / std::sqrt(float(a.head_dim));
  if (!c.has("head_dim") && b.dim % a.heads) bad("hidden_size", "a multiple of num_attention_heads", b.dim);
  check_sizes(b);
  return b;
}

ModelSpec llama_model(const Config& c, const nlohmann::json& json, BlockSpec block) {
  const RopeSpec rope = rope_of(json, block.attention.head_dim);
  block.attention.rope = rope;
  ModelSpec m = model_without_rope(c, block);
  m.max_context = rope.context(m.max_context);
  m.context_rule = rope.text();
  return m;
}

ModelSpec model_without_rope(const Config& c, const BlockSpec& block) {
  ModelSpec m;
  m.arch = c.at("architectures").at(0).get<std::string>();
  m.dim = block.dim;
  m.vocab = c.positive("vocab_size");
  m.max_context = c.positive("max_position_embeddings");
  m.tied_embeddings = c.flag("tie_word_embeddings", false);
  m.final_norm = block.norm;
  const int blocks = c.positive("num_hidden_layers");
  if (blocks > 1024) bad("num_hidden_layers", "at most 1024", blocks);
  m.blocks.assign(size_t(blocks), block);
  return m;
}

void apply_layer_types(const Config& c, ModelSpec& m) {
  const nlohmann::json& types = c.at("layer_types");
  if (!types.is_array() || types.size() != m.blocks.size()) bad("layer_types", "a list with one entry a layer", types);
  for (size_t i = 0; i < types.size(); ++i) {
    if (types[i] == "sliding_attention")
      m.blocks[i].attention.window = c.positive("sliding_window");
    else if (types[i] != "full_attention")
      bad("layer_types", "full_attention or sliding_attention", types[i]);
  }
}

std::string llama_source(int block, Param p) {
  using enum Role;
  const std::string layer = fmt::format("model.layers.{}.", block);
  switch (p.role) {
    case embed:
      return "model.embed_tokens";
    case final_norm:
      return "model.norm";
    case head:
      return "lm_head";
    case attn_norm:
      return layer + "input_layernorm";
    case q:
      return layer + "self_attn.q_proj";
    case k:
      return layer + "self_attn.k_proj";
    case v:
      return layer + "self_attn.v_proj";
    case o:
      return layer + "self_attn.o_proj";
    case q_norm:
      return layer + "self_attn.q_norm";
    case k_norm:
      return layer + "self_attn.k_norm";
    case mlp_norm:
      return layer + "post_attention_layernorm";
    case gate:
      return layer + "mlp.gate_proj";
    case up:
      return layer + "mlp.up_proj";
    case down:
      return layer + "mlp.down_proj";
    default:
      fail("model", "{} has no tensor in this family", name_of(p.role));
  }
}

}  // namespace awq
