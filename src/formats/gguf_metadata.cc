#include "formats/gguf_metadata.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <variant>

#include "base/check.h"
#include "formats/gguf_config.h"
#include "formats/gguf_layout.h"
#include "model/arch/gguf.h"

namespace awq {
namespace {

using Json = nlohmann::json;

/// Of blocks that see everything: those with a window have a rope of their own in some families.
const BlockSpec& global_block(const ModelSpec& spec) {
  const auto it = std::ranges::find_if(spec.blocks, [](const BlockSpec& b) { return !b.attention.window; });
  return it == spec.blocks.end() ? spec.blocks.front() : *it;
}

const BlockSpec* windowed_block(const ModelSpec& spec) {
  const auto it = std::ranges::find_if(spec.blocks, [](const BlockSpec& b) { return bool(b.attention.window); });
  return it == spec.blocks.end() ? nullptr : &*it;
}

/// The first block of those with experts, with one MLP or with attention; the first of all where there is none.
template <class Is>
const BlockSpec& first_block(const ModelSpec& spec, const Is& is) {
  const auto it = std::ranges::find_if(spec.blocks, is);
  return it == spec.blocks.end() ? spec.blocks.front() : *it;
}

/// Of blocks that see everything the first that is rotated, else of all.
const BlockSpec& rotated_block(const ModelSpec& spec) {
  const BlockSpec& global = global_block(spec);
  return global.attention.rope.dims ? global
                                    : first_block(spec, [](const BlockSpec& b) { return b.attention.rope.dims != 0; });
}

/// What a model's metadata is made of.
struct Described {
  const ModelSpec& spec;
  const Json& config;
  const BlockSpec& attention = global_block(spec);
  const BlockSpec& rotated = rotated_block(spec);
  const BlockSpec& dense = first_block(spec, [](const BlockSpec& b) { return !b.experts; });
  const BlockSpec& routed = first_block(spec, [](const BlockSpec& b) { return bool(b.experts); });
  const BlockSpec* windowed = windowed_block(spec);
  const AttentionSpec& heads() const { return attention.attention; }
  const RopeSpec& rope() const { return rotated.attention.rope; }
  const ExpertsSpec* experts() const { return routed.experts ? &*routed.experts : nullptr; }
  int64_t leading_dense() const {
    return std::ranges::find_if(spec.blocks, [](const BlockSpec& b) { return bool(b.experts); }) - spec.blocks.begin();
  }
};

using Value = std::variant<std::monostate, int64_t, float, bool, std::string, std::vector<uint8_t>>;

/// A key below "<architecture>.", which is written where the family has it and the model a value for it.
struct Key {
  std::string_view name;
  Value (*of)(const Described& d);
};

Value if_any(int64_t n) { return n ? Value(n) : Value(); }
Value if_any(int n) { return if_any(int64_t(n)); }
Value if_any(float v) { return v != 0 ? Value(v) : Value(); }
Value eps_of(const Described& d, NormKind kind) {
  return d.spec.final_norm.kind == kind ? Value(d.spec.final_norm.eps) : Value();
}

/// Of one MLP, as config.json counts it.
int64_t dense_width(const Described& d) {
  const auto it = d.config.find("intermediate_size");
  return it != d.config.end() && it->is_number() ? it->get<int64_t>() : int64_t(d.dense.mlp.hidden);
}

/// Every sixth block sees everything in programs that find no pattern.
Value window_pattern(const Described& d) {
  std::vector<uint8_t> flags;
  for (const BlockSpec& b : d.spec.blocks) flags.push_back(bool(b.attention.window));
  bool usual = true;
  for (size_t i = 0; i < flags.size(); ++i) usual = usual && flags[i] == ((i + 1) % 6 != 0);
  return usual || !d.windowed ? Value() : Value(flags);
}

Value rope_scaling(const Described& d) {
  if (d.rope().scaling == RopeScaling::linear) return "linear";
  return d.rope().scaling == RopeScaling::yarn ? Value("yarn") : Value();
}

/// A tenth of what the scaling has for scores: the spec has only what it makes of them.
Value yarn_multiplier(const Described& d) {
  for (const char* key : {"rope_parameters", "rope_scaling"})
    if (const auto it = d.config.find(key); it != d.config.end() && it->is_object() && it->contains("mscale_all_dim"))
      return float(0.1 * it->at("mscale_all_dim").get<double>());
  return {};
}

/// What multiplies logits, or divides them where config.json has such a number.
Value logit_scale(const Described& d) {
  if (d.config.contains("logit_scale")) return d.spec.head_input_scale;
  return d.config.value("logits_scaling", 1 / d.spec.head_input_scale);
}

bool is_yarn(const Described& d) { return d.rope().scaling == RopeScaling::yarn; }

constexpr Key kKeys[] = {
    {"block_count", [](const Described& d) -> Value { return int64_t(d.spec.blocks.size()); }},
    {"context_length",
     [](const Described& d) -> Value { return d.config.value(d.spec.context_key, int64_t(d.spec.max_context)); }},
    {"embedding_length", [](const Described& d) -> Value { return int64_t(d.spec.dim); }},
    {"feed_forward_length", [](const Described& d) -> Value { return dense_width(d); }},
    {"leading_dense_block_count", [](const Described& d) -> Value { return d.leading_dense(); }},
    {"expert_count", [](const Described& d) { return d.experts() ? if_any(d.experts()->count) : Value(); }},
    {"expert_used_count", [](const Described& d) { return d.experts() ? if_any(d.experts()->active) : Value(); }},
    {"expert_feed_forward_length", [](const Described& d) -> Value { return int64_t(d.routed.mlp.hidden); }},
    {"expert_shared_feed_forward_length",
     [](const Described& d) { return d.experts() ? if_any(d.experts()->shared_hidden) : Value(); }},
    {"expert_shared_count",
     [](const Described& d) -> Value { return int64_t(d.experts()->shared_hidden / d.routed.mlp.hidden); }},
    {"expert_weights_scale", [](const Described& d) -> Value { return d.experts()->scale; }},
    {"expert_weights_norm", [](const Described& d) -> Value { return d.experts()->normalized; }},
    {"expert_gating_func", [](const Described& d) -> Value { return int64_t(d.experts()->scores) + 1; }},
    {"expert_group_count",
     [](const Described& d) { return d.experts()->groups > 1 ? if_any(d.experts()->groups) : Value(); }},
    {"expert_group_used_count",
     [](const Described& d) { return d.experts()->groups > 1 ? if_any(d.experts()->active_groups) : Value(); }},
    {"vocab_size", [](const Described& d) -> Value { return int64_t(d.spec.vocab); }},
    {"attention.head_count", [](const Described& d) -> Value { return int64_t(d.heads().heads); }},
    {"attention.head_count_kv", [](const Described& d) -> Value { return int64_t(d.heads().kv_heads); }},
    {"attention.key_length", [](const Described& d) -> Value { return int64_t(d.heads().head_dim); }},
    {"attention.value_length", [](const Described& d) -> Value { return int64_t(d.heads().v_dim()); }},
    {"attention.q_lora_rank", [](const Described& d) { return if_any(d.heads().latent.value().q_rank); }},
    {"attention.kv_lora_rank", [](const Described& d) { return if_any(d.heads().latent.value().kv_rank); }},
    {"attention.layer_norm_rms_epsilon", [](const Described& d) { return eps_of(d, NormKind::rms); }},
    {"attention.layer_norm_epsilon", [](const Described& d) { return eps_of(d, NormKind::layer); }},
    {"attention.clamp_kqv", [](const Described& d) { return if_any(d.heads().clip); }},
    {"attention.max_alibi_bias", [](const Described& d) { return if_any(8 * d.heads().alibi); }},
    {"attn_logit_softcapping", [](const Described& d) { return if_any(d.heads().soft_cap); }},
    {"use_parallel_residual",
     [](const Described& d) -> Value { return d.spec.blocks.front().parallel != Parallel::no; }},
    {"attention.scale", [](const Described& d) -> Value { return d.heads().query_scale; }},
    {"attention.sliding_window",
     [](const Described& d) { return d.windowed ? if_any(*d.windowed->attention.window) : Value(); }},
    {"attention.sliding_window_pattern", window_pattern},
    {"rope.dimension_count", [](const Described& d) { return if_any(d.rope().dims); }},
    {"rope.freq_base", [](const Described& d) { return d.rope().dims ? Value(d.rope().theta) : Value(); }},
    {"rope.freq_base_swa",
     [](const Described& d) { return d.windowed ? Value(d.windowed->attention.rope.theta) : Value(); }},
    {"rope.scaling.type", rope_scaling},
    {"rope.scaling.factor",
     [](const Described& d) { return rope_scaling(d).index() ? Value(d.rope().factor) : Value(); }},
    {"rope.scaling.original_context_length",
     [](const Described& d) {
       return is_yarn(d) || d.rope().scaling == RopeScaling::longrope ? if_any(d.rope().original_context) : Value();
     }},
    {"rope.scaling.yarn_beta_fast",
     [](const Described& d) { return is_yarn(d) && d.rope().beta_fast != 32 ? Value(d.rope().beta_fast) : Value(); }},
    {"rope.scaling.yarn_beta_slow",
     [](const Described& d) { return is_yarn(d) && d.rope().beta_slow != 1 ? Value(d.rope().beta_slow) : Value(); }},
    {"rope.scaling.yarn_log_multiplier", [](const Described& d) { return is_yarn(d) ? yarn_multiplier(d) : Value(); }},
    {"embedding_scale", [](const Described& d) -> Value { return d.spec.embed_scale; }},
    {"residual_scale", [](const Described& d) -> Value { return d.spec.blocks.front().residual_scale; }},
    {"logit_scale", logit_scale},
    {"final_logit_softcapping", [](const Described& d) { return if_any(d.spec.logit_cap); }},
};

void add(GgufMetadata& m, const std::string& key, const Value& v) {
  if (const auto* n = std::get_if<int64_t>(&v)) m.u32(key, uint32_t(*n));
  if (const auto* f = std::get_if<float>(&v)) m.f32(key, *f);
  if (const auto* f = std::get_if<bool>(&v)) m.flag(key, *f);
  if (const auto* s = std::get_if<std::string>(&v)) m.text(key, *s);
  if (const auto* list = std::get_if<std::vector<uint8_t>>(&v)) m.flags(key, *list);
}

void add_keys(GgufMetadata& m, const GgufFamily& family, const Described& d) {
  for (const Key& key : kKeys)
    if (std::ranges::count(gguf_common_keys(), key.name) || std::ranges::count(family.keys, key.name))
      add(m, fmt::format("{}.{}", family.name, key.name), key.of(d));
}

/// Files have LongRoPE's factors in single precision.
BlockSpec as_files_have(BlockSpec b) {
  for (std::vector<double>* factors : {&b.attention.rope.short_factors, &b.attention.rope.long_factors})
    for (double& f : *factors) f = double(float(f));
  return b;
}

/// The first thing in which the two differ; empty where they compute the same. Names and rules of the family aside:
/// Mistral without a window is a Llama.
std::string difference(const ModelSpec& a, const ModelSpec& b) {
  const std::pair<const char*, bool> same[] = {{"the width", a.dim == b.dim},
                                               {"the vocabulary", a.vocab == b.vocab},
                                               {"the context", a.max_context == b.max_context},
                                               {"the scale of embeddings", a.embed_scale == b.embed_scale},
                                               {"learned positions", a.learned_positions == b.learned_positions},
                                               {"a norm of embeddings", a.embed_norm == b.embed_norm},
                                               {"the scale of the head", a.head_input_scale == b.head_input_scale},
                                               {"the cap of logits", a.logit_cap == b.logit_cap},
                                               {"the bias of the head", a.head_bias == b.head_bias},
                                               {"rows of the head", a.head_unit_rows == b.head_unit_rows},
                                               {"the tied head", a.tied_embeddings == b.tied_embeddings},
                                               {"the last norm", a.final_norm == b.final_norm},
                                               {"the number of blocks", a.blocks.size() == b.blocks.size()}};
  for (const auto& [what, equal] : same)
    if (!equal) return what;
  for (size_t i = 0; i < a.blocks.size(); ++i)
    if (as_files_have(a.blocks[i]) != as_files_have(b.blocks[i]))
      return fmt::format("block {} (its norms, attention, positions or MLP)", i);
  return "";
}

struct Bytes {
  std::vector<GgufPlace> table;
  std::string data;
  void add(const std::string& name, const Shape& shape, const GgmlType& type, std::string_view bytes) {
    table.push_back({name, shape, type.id, data.size()});
    data += bytes;
    data.resize((data.size() + kGgufAlignment - 1) / kGgufAlignment * kGgufAlignment);
  }
};

}  // namespace

namespace {

/// f32 [dims / 2], by which Llama 3.1's scaling divides angles.
Tensor rope_divisors(RopeSpec rope) {
  const std::vector<float> scaled = rope.frequencies();
  rope.scaling = RopeScaling::none;
  const std::vector<float> plain = rope.frequencies();
  Tensor t = Tensor::empty({int64_t(plain.size())}, DType::f32);
  // What is divided by the factor is exactly that: the reader takes it from the largest.
  for (size_t i = 0; i < plain.size(); ++i) {
    const float divisor = plain[i] / scaled[i];
    t.as<float>()[i] = std::abs(divisor - rope.factor) < 1e-5f * rope.factor ? rope.factor : divisor;
  }
  return t;
}

Tensor rope_factors(const std::vector<double>& factors) {
  Tensor t = Tensor::empty({int64_t(factors.size())}, DType::f32);
  std::ranges::transform(factors, t.as<float>().begin(), [](double f) { return float(f); });
  return t;
}

/// What says what the model is: embedding and head, and names of what a block has.
void add_outline(Bytes& b, const GgufFamily& family, const ModelSpec& spec) {
  const GgmlType& byte = ggml_type("I8");
  b.add("token_embd.weight", {spec.vocab, 1}, byte, std::string(size_t(spec.vocab), '\0'));
  if (!spec.tied_embeddings) b.add("output.weight", {1}, byte, std::string(1, '\0'));
  const StoredTensors stored = gguf_tensors(family, spec, gguf_layout(family));
  for (const StoredTensor& t : stored.all()) {
    if (t.parts.front().block != 0) continue;
    b.add(t.weight(), {1}, byte, std::string(1, '\0'));
    if (t.bias) b.add(t.bias_tensor(), {1}, byte, std::string(1, '\0'));
  }
}

}  // namespace

std::vector<std::pair<std::string, Tensor>> gguf_rope_tensors(const ModelSpec& spec) {
  const RopeSpec& rope = global_block(spec).attention.rope;
  if (rope.scaling == RopeScaling::llama3) return {{"rope_freqs.weight", rope_divisors(rope)}};
  if (rope.scaling != RopeScaling::longrope) return {};
  return {{"rope_factors_long.weight", rope_factors(rope.long_factors)},
          {"rope_factors_short.weight", rope_factors(rope.short_factors)}};
}

Gguf gguf_outline(const GgufMetadata& metadata, const ModelSpec& spec) {
  Bytes b;
  add_outline(b, *find_gguf_family(find_architecture(spec.arch).gguf_name), spec);
  for (const auto& [name, t] : gguf_rope_tensors(spec))
    b.add(name, t.shape(), ggml_type("F32"), {reinterpret_cast<const char*>(t.data()), t.bytes()});
  const std::string text = gguf_header(metadata, b.table) + b.data;
  const auto owner = std::make_shared<Tensor>(Tensor::empty({int64_t(text.size())}, DType::u8));
  std::memcpy(owner->data(), text.data(), text.size());
  return {"model.gguf", {owner->data(), text.size()}, owner};
}

GgufMetadata gguf_metadata(const ModelSpec& spec, const Json& config, uint32_t file_type) {
  const GgufFamily* family = find_gguf_family(find_architecture(spec.arch).gguf_name);
  if (!family)
    fail("write", "{}: GGUF files of this family are neither read nor written; it is not known how they spell it",
         spec.arch);
  GgufMetadata m;
  m.text("general.architecture", family->name).text("general.type", "model");
  m.u32("general.file_type", file_type).u32("general.quantization_version", 2);
  add_keys(m, *family, {spec, config});
  const Json read = gguf_config(gguf_outline(m, spec));
  const ModelSpec back = find_architecture(read["architectures"][0].get<std::string>()).parse(read);
  if (const std::string what = difference(spec, back); !what.empty())
    fail("write", "{}: {} cannot be said in GGUF's metadata of the architecture \"{}\" as this version writes it",
         spec.arch, what, family->name);
  return m;
}

}  // namespace awq
