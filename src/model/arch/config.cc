#include "model/arch/config.h"

#include <cmath>

namespace awq {
namespace {

[[noreturn]] void bad(std::string_view key, std::string_view expected, const nlohmann::json& got) {
  fail("config", "config.json: \"{}\" should be {}, but is {}; is the file complete and of this model?", key, expected,
       got.dump());
}

void check_width(int64_t n) {
  const int64_t largest = int64_t(1) << 24;  // no model is near; keeps products of two sizes far from overflow
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

std::vector<double> read_factors(const Config& s, std::string_view key, int pairs) {
  const nlohmann::json& list = s.at(key);
  if (!list.is_array() || list.size() != size_t(pairs)) bad(key, fmt::format("{} numbers", pairs), list);
  for (const nlohmann::json& f : list)
    if (!f.is_number() || !(f.get<double>() > 0)) bad(key, "numbers above 0", list);
  return list.get<std::vector<double>>();
}

/// LongRoPE (Ding et al. 2024, arXiv 2402.13753). `model` is the object that may say how long contexts were and are.
void read_longrope(const Config& s, const Config& model, RopeSpec& r) {
  const char* original = "original_max_position_embeddings";
  r.short_factors = read_factors(s, "short_factor", r.dims / 2);
  r.long_factors = read_factors(s, "long_factor", r.dims / 2);
  r.original_context = model.has(original) ? model.positive(original) : s.positive(original);
  if (r.original_context < 2) bad(original, "at least 2", r.original_context);
  r.factor = s.number("factor", 0.f);
  if (r.factor == 0) r.factor = float(model.positive("max_position_embeddings")) / float(r.original_context);
  const double of_paper = std::sqrt(1 + std::log(std::max(1.0, double(r.factor))) / std::log(r.original_context));
  r.attention_factor = s.number("attention_factor", float(of_paper));
  if (!(r.attention_factor > 0)) bad("attention_factor", "above 0", r.attention_factor);
}

RopeScaling scaling_of(const std::string& type) {
  if (type == "default") return RopeScaling::none;
  if (type == "linear") return RopeScaling::linear;
  if (type == "dynamic") return RopeScaling::dynamic;
  if (type == "llama3") return RopeScaling::llama3;
  if (type == "yarn") return RopeScaling::yarn;
  if (type == "longrope" || type == "su") return RopeScaling::longrope;
  bad("rope_type", "default, linear, dynamic, llama3, yarn or longrope (what this version implements)", type);
}

/// Angles are those of a whole head, of which only the first ones are turned.
RopeSpec proportional(RopeSpec r, const Config& s) {
  r.factor = s.number("factor", 1.f);
  if (!(r.factor >= 1.f)) bad("factor", "at least 1", r.factor);
  r.scaling = r.factor == 1 ? RopeScaling::none : RopeScaling::linear;
  return r;
}

RopeSpec scaled_rope(RopeSpec r, const nlohmann::json& scaling, const Config& model) {
  const Config s(scaling);
  if (r.turned) return proportional(r, s);
  r.scaling = scaling_of(s.text("rope_type", s.text("type", "default")));
  if (r.scaling == RopeScaling::none) return r;
  if (r.scaling == RopeScaling::longrope) {
    read_longrope(s, model, r);
    return r;
  }
  r.factor = s.number("factor");
  if (!(r.factor >= 1.f)) bad("factor", "at least 1", scaling);
  if (r.scaling == RopeScaling::llama3) read_llama3(s, scaling, r);
  if (r.scaling == RopeScaling::yarn) read_yarn(s, scaling, r);
  if (r.scaling == RopeScaling::dynamic) r.original_context = model.positive("max_position_embeddings");
  return r;
}

/// The object with theta and scaling, whichever way the file spells it.
const nlohmann::json& rope_parameters(const Config& c) {
  const nlohmann::json& p = c.at("rope_parameters");
  c.require_absent_or("rope_scaling", nullptr);  // programs differ in which of the two they follow
  if (p.contains("full_attention")) bad("rope_parameters", "one rule for all layers in this family", p);
  return p;
}

/// 1 / sqrt(head_dim), times the square of what "mscale_all_dim" makes of the factor.
float latent_scale(const nlohmann::json& json, const AttentionSpec& a) {
  const Config c(json);
  const char* key = c.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  const float weight = c.has(key) ? Config(c.at(key)).number("mscale_all_dim", 0.f) : 0.f;
  const bool scaled = weight != 0 && a.rope.scaling != RopeScaling::none && a.rope.factor > 1;
  const float by = scaled ? 0.1f * weight * std::log(a.rope.factor) + 1 : 1;
  return by * by / std::sqrt(float(a.head_dim));
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

int Config::whole(std::string_view key, int missing) const {
  return has(key) && at(key) == 0 ? 0 : positive(key, missing);
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
  if (act == "gelu_pytorch_tanh" || act == "gelu_new" || act == "gelu_fast") return Activation::gelu_tanh;
  if (act == "gelu") return Activation::gelu;
  if (act == "relu") return Activation::relu;
  if (act == "relu2") return Activation::relu2;
  bad(key, "silu, gelu, gelu_pytorch_tanh, gelu_new, relu or relu2 (what this version implements)", act);
}

RopeSpec rope_of(const nlohmann::json& json, int head_dim, float default_theta, std::optional<float> partial) {
  const Config c(json);
  const nlohmann::json& p = c.has("rope_parameters") ? rope_parameters(c) : json;
  const bool whole = c.has("rope_parameters") && Config(p).text("rope_type", "") == "proportional";
  if (!partial && !whole)
    for (const Config& holder : {c, Config(p)}) holder.require_absent_or("partial_rotary_factor", 1.0);
  const float share = Config(p).number("partial_rotary_factor", c.number("partial_rotary_factor", partial.value_or(1)));
  RopeSpec r{.theta = Config(p).number("rope_theta", c.number("rope_theta", default_theta)),
             .dims = int(float(head_dim) * share)};
  if (r.dims < 2 || r.dims > head_dim || r.dims % 2)
    bad("partial_rotary_factor", fmt::format("a part of a head's {} channels that is a number of pairs", head_dim),
        share);
  if (whole) r.turned = r.dims / 2, r.dims = head_dim;
  if (&p != &json)
    r = scaled_rope(r, p, c);
  else if (c.has("rope_scaling"))
    r = scaled_rope(r, c.at("rope_scaling"), c);
  if (!(r.theta > 1.f)) bad("rope_theta", "larger than 1", r.theta);
  if (r.scaling == RopeScaling::llama3 || r.scaling == RopeScaling::yarn)
    c.require_absent_or("original_max_position_embeddings", r.original_context);
  return r;
}

nlohmann::json rope_of_type(const nlohmann::json& json, const char* layer_type) {
  const auto p = json.find("rope_parameters");
  if (p == json.end() || !p->is_object() || !p->contains(layer_type)) return json;
  return {{"rope_parameters", p->at(layer_type)}};
}

void check_sizes(const BlockSpec& b) {
  const AttentionSpec& a = b.attention;
  if (a.heads % a.kv_heads)
    fail("config", "config.json: num_attention_heads ({}) is no multiple of num_key_value_heads ({})", a.heads,
         a.kv_heads);
  if (a.head_dim % 2) fail("config", "config.json: head_dim {} is odd; rotary positions need pairs", a.head_dim);
  for (int64_t n : {int64_t(b.dim), int64_t(b.mlp.hidden), int64_t(a.heads) * a.head_dim}) check_width(n);
}

BlockSpec llama_block(const Config& c, const Spelling& names) {
  BlockSpec b;
  b.dim = c.positive(names.dim);
  check_width(b.dim);
  b.norm.eps = c.number(names.eps);
  b.mlp.hidden = names.hidden_times && !c.has(names.hidden) ? names.hidden_times * b.dim : c.positive(names.hidden);
  AttentionSpec& a = b.attention;
  a.heads = c.positive(names.heads);
  a.kv_heads = c.positive(names.kv_heads, a.heads);
  a.head_dim = c.positive("head_dim", std::max(1, b.dim / a.heads));
  a.query_scale = 1.f / std::sqrt(float(a.head_dim));
  if (!c.has("head_dim") && b.dim % a.heads) bad(names.dim, fmt::format("a multiple of {}", names.heads), b.dim);
  check_sizes(b);
  return b;
}

ModelSpec llama_model(const Config& c, const nlohmann::json& json, BlockSpec block, const Spelling& names) {
  if (!block.attention.rope.dims) block.attention.rope = rope_of(json, block.attention.head_dim);
  const RopeSpec rope = block.attention.rope;
  ModelSpec m = model_without_rope(c, block, names);
  m.max_context = rope.context(m.max_context);
  m.context_rule = rope.text();
  return m;
}

ModelSpec model_without_rope(const Config& c, const BlockSpec& block, const Spelling& names) {
  ModelSpec m;
  m.arch = c.at("architectures").at(0).get<std::string>();
  m.dim = block.dim;
  m.vocab = c.positive(names.vocab);
  m.context_key = names.positions;
  m.max_context = c.positive(names.positions);
  m.tied_embeddings = c.flag("tie_word_embeddings", names.tied);
  m.final_norm = block.norm;
  const int blocks = c.positive(names.blocks);
  if (blocks > 1024) bad(names.blocks, "at most 1024", blocks);
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

void apply_dense_blocks(const Config& c, ModelSpec& m) {
  const int step = c.positive("decoder_sparse_step", 1);
  std::vector<int> dense;
  if (c.has("mlp_only_layers")) dense = c.at("mlp_only_layers").get<std::vector<int>>();
  for (int i = 0; i < int(m.blocks.size()); ++i) {
    if ((i + 1) % step == 0 && !std::ranges::count(dense, i)) continue;
    m.blocks[size_t(i)].experts.reset();
    m.blocks[size_t(i)].mlp.hidden = c.positive("intermediate_size");
  }
}

int width_of_shared(int count, int hidden) {
  check_width(int64_t(count) * hidden);
  return count * hidden;
}

void read_groups(const Config& c, int best, ExpertsSpec& e) {
  e.groups = c.positive("n_group", 1), e.active_groups = c.positive("topk_group", 1), e.group_best = best;
  if (e.groups > 1 && (e.count % e.groups || best > e.count / e.groups))
    bad("n_group", fmt::format("a number of equal groups of {} experts, of at least {}", e.count, best), e.groups);
  if (e.active_groups > e.groups) bad("topk_group", "at most n_group", e.active_groups);
  if (e.active > e.count / e.groups * e.active_groups)
    bad("num_experts_per_tok", "at most the number of experts in topk_group groups", e.active);
}

namespace {

/// Channels of keys and values that blocks share so far.
int64_t passed_on(const ModelSpec& m) {
  int64_t n = 0;
  for (const BlockSpec& b : m.blocks)
    if (b.shared_keys && !b.shared_keys->of) n += b.attention.kv_rows() + b.attention.v_rows();
  return n;
}

}  // namespace

namespace {

DeltaSpec delta_of(const Config& c, float eps) {
  c.require_absent_or("hidden_act", "silu");  // the convolution's too
  const DeltaSpec d{.key_heads = c.positive("linear_num_key_heads"),
                    .value_heads = c.positive("linear_num_value_heads"),
                    .key_dim = c.positive("linear_key_head_dim"),
                    .value_dim = c.positive("linear_value_head_dim"),
                    .kernel = c.positive("linear_conv_kernel_dim"),
                    .norm = {.eps = eps}};
  if (d.kernel < 2) bad("linear_conv_kernel_dim", "at least 2", d.kernel);
  if (d.value_heads % d.key_heads)
    bad("linear_num_value_heads", fmt::format("a multiple of {} key heads", d.key_heads), d.value_heads);
  return d;
}

bool is_delta(const Config& c, size_t block) {
  if (!c.has("layer_types")) return (block + 1) % size_t(c.positive("full_attention_interval", 4)) != 0;
  const nlohmann::json& type = c.at("layer_types").at(block);
  if (type != "linear_attention" && type != "full_attention")
    bad("layer_types", "linear_attention or full_attention", type);
  return type == "linear_attention";
}

}  // namespace

void apply_deltas(const Config& c, ModelSpec& m) {
  for (size_t i = 0; i < m.blocks.size(); ++i)
    if (is_delta(c, i)) m.blocks[i].attention = {}, m.blocks[i].delta = delta_of(c, m.blocks[i].norm.eps);
}

ExpertsSpec corrected_experts(const Config& c) {
  c.require_absent_or("scoring_func", "sigmoid");
  ExpertsSpec e = experts_of(c, "n_routed_experts");
  e.scores = Scores::sigmoid;
  e.correction = true;
  e.normalized = c.flag("norm_topk_prob", true);
  e.scale = c.number("routed_scaling_factor", 1.f);
  read_groups(c, 2, e);
  return e;
}

void apply_first_dense(const Config& c, const BlockSpec& dense, ModelSpec& m) {
  const auto blocks = int(m.blocks.size());
  std::fill_n(m.blocks.begin(), std::min(c.whole("first_k_dense_replace", 0), blocks), dense);
  for (int i = 0; i < c.whole("num_nextn_predict_layers", 0); ++i)
    m.unused.push_back({fmt::format("model.layers.{}.", blocks + i), kFurtherTokens});
}

void apply_own_inputs(const Config& c, const nlohmann::json& json, ModelSpec& m) {
  const char* key = "hidden_size_per_layer_input";
  const int width = json.contains(key) && !c.has(key) ? 0 : c.whole(key, 256);
  if (!width) return;
  c.require_absent_or("vocab_size_per_layer_input", m.vocab);
  if (int64_t(m.vocab) * int64_t(m.blocks.size()) > INT32_MAX)
    fail("config", "config.json: vocab_size {} times num_hidden_layers {} is not plausible", m.vocab, m.blocks.size());
  m.own_input = {.width = width, .row_scale = std::sqrt(float(width)), .scale = std::sqrt(0.5f), .norm = m.final_norm};
  for (BlockSpec& b : m.blocks) b.own_width = width;
}

void share_last_keys(const Config& c, ModelSpec& m) {
  const int blocks = int(m.blocks.size()), count = c.whole("num_kv_shared_layers", 0);
  if (count >= blocks) bad("num_kv_shared_layers", "fewer than there are layers", c.at("num_kv_shared_layers"));
  for (int i = blocks - count; i < blocks; ++i) {
    int of = blocks - count - 1;
    const auto window = [&](int b) { return m.blocks[size_t(b)].attention.window; };
    while (of >= 0 && window(of) != window(i)) --of;
    if (of < 0) bad("layer_types", "a layer of each kind before those that share keys and values", c.at("layer_types"));
    if (!m.blocks[size_t(of)].shared_keys) m.blocks[size_t(of)].shared_keys = SharedKeys{{}, passed_on(m)};
    BlockSpec& b = m.blocks[size_t(i)];
    b.shared_keys = SharedKeys{of, m.blocks[size_t(of)].shared_keys->place};
    if (c.flag("use_double_wide_mlp", false)) (b.experts ? b.experts->shared_hidden : b.mlp.hidden) *= 2;
    for (const char* part : {"k_proj", "v_proj", "k_norm", "v_norm"})
      m.unused.push_back({fmt::format("model.layers.{}.self_attn.{}", i, part),
                          fmt::format("computed without: block {} reads keys and values of block {}", i, of)});
  }
}

BlockSpec latent_block(const Config& c, const nlohmann::json& json, const Spelling& names) {
  BlockSpec b = llama_block(c, names);
  b.mlp.act = activation_of(c, "hidden_act");
  AttentionSpec& a = b.attention;
  const int rotated = c.positive("qk_rope_head_dim");
  check_width(int64_t(rotated) + c.positive("qk_nope_head_dim"));
  a.head_dim = c.positive("qk_nope_head_dim") + rotated;
  a.value_dim = c.positive("v_head_dim", b.dim / a.heads);
  a.latent = {.q_rank = c.has("q_lora_rank") ? c.positive("q_lora_rank") : 0, .kv_rank = c.positive("kv_lora_rank")};
  a.latent->norm.eps = 1e-6f;  // whatever the config says: the published code leaves it at its default
  a.rope = rope_of(json, rotated);
  if (a.kv_heads != a.heads) bad(names.kv_heads, fmt::format("{}, as many as {}", a.heads, names.heads), a.kv_heads);
  if (a.rope.attention_factor != 1.f)  // it would multiply what is rotated, and that is not all of a head
    bad("rope_scaling", "with mscale equal to mscale_all_dim (nothing else is implemented)", a.rope.attention_factor);
  a.query_scale = latent_scale(json, a);
  check_sizes(b);
  for (int64_t n : {int64_t(a.heads) * a.value_dim, int64_t(a.latent->q_rank), int64_t(a.latent->kv_rank)})
    check_width(n);
  return b;
}

ExpertsSpec experts_of(const Config& c, const char* count, const char* active) {
  const ExpertsSpec e{.count = c.positive(count), .active = c.positive(active)};
  if (e.count > 4096) bad(count, "at most 4096", e.count);
  if (e.active > e.count) bad(active, fmt::format("at most {}, which is {}", count, e.count), e.active);
  return e;
}

}  // namespace awq
