#include "formats/gguf_metadata.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "formats/gguf_config.h"
#include "formats/gguf_layout.h"

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

void add_sizes(GgufMetadata& m, const std::string& arch, const ModelSpec& spec, const Json& config) {
  const BlockSpec& b = spec.blocks.front();
  const AttentionSpec& a = b.attention;
  const auto size = [&](std::string_view key, int64_t v) { m.u32(fmt::format("{}.{}", arch, key), uint32_t(v)); };
  size("block_count", int64_t(spec.blocks.size()));
  size("context_length", config.value(spec.context_key, spec.max_context));
  size("embedding_length", spec.dim);
  size("feed_forward_length", b.experts ? config.value("intermediate_size", b.mlp.hidden) : b.mlp.hidden);
  if (const auto& e = b.experts) {
    size("expert_count", e->count);
    size("expert_used_count", e->active);
    if (arch.starts_with("qwen")) size("expert_feed_forward_length", b.mlp.hidden);
    if (e->shared_hidden) size("expert_shared_feed_forward_length", e->shared_hidden);
  }
  size("vocab_size", spec.vocab);
  size("attention.head_count", a.heads);
  size("attention.head_count_kv", a.kv_heads);
  size("attention.key_length", a.head_dim);
  size("attention.value_length", a.head_dim);
  size("rope.dimension_count", a.rope.dims);
  m.f32(arch + ".attention.layer_norm_rms_epsilon", b.norm.eps);
}

void add_rope(GgufMetadata& m, const std::string& arch, const RopeSpec& rope) {
  m.f32(arch + ".rope.freq_base", rope.theta);
  if (rope.scaling != RopeScaling::linear && rope.scaling != RopeScaling::yarn) return;
  m.text(arch + ".rope.scaling.type", rope.scaling == RopeScaling::linear ? "linear" : "yarn");
  m.f32(arch + ".rope.scaling.factor", rope.factor);
  if (rope.scaling == RopeScaling::yarn)
    m.u32(arch + ".rope.scaling.original_context_length", uint32_t(rope.original_context));
}

void add_scales(GgufMetadata& m, const std::string& arch, const ModelSpec& spec, const Json& config) {
  if (!arch.starts_with("granite")) return;
  m.f32(arch + ".embedding_scale", spec.embed_scale);
  m.f32(arch + ".residual_scale", spec.blocks.front().residual_scale);
  m.f32(arch + ".attention.scale", spec.blocks.front().attention.query_scale);
  m.f32(arch + ".logit_scale", config.value("logits_scaling", 1.f));  // of which the spec has the inverse
}

// Every sixth block sees everything in programs that find no pattern.
void add_windows(GgufMetadata& m, const std::string& arch, const ModelSpec& spec) {
  const BlockSpec* windowed = windowed_block(spec);
  if (!windowed) return;
  m.u32(arch + ".attention.sliding_window", uint32_t(*windowed->attention.window));
  if (arch != "gemma3") return;
  m.f32(arch + ".rope.freq_base_swa", windowed->attention.rope.theta);
  std::vector<uint8_t> flags;
  for (const BlockSpec& b : spec.blocks) flags.push_back(bool(b.attention.window));
  bool usual = true;
  for (size_t i = 0; i < flags.size(); ++i) usual = usual && flags[i] == ((i + 1) % 6 != 0);
  if (!usual) m.flags(arch + ".attention.sliding_window_pattern", flags);
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
    if (a.blocks[i] != b.blocks[i]) return fmt::format("block {} (its norms, attention, positions or MLP)", i);
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

Tensor gguf_rope_divisors(const ModelSpec& spec) {
  RopeSpec rope = spec.blocks.front().attention.rope;
  if (rope.scaling != RopeScaling::llama3) return {};
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

Gguf gguf_outline(const GgufMetadata& metadata, const ModelSpec& spec) {
  const GgmlType& byte = ggml_type("I8");
  Bytes b;
  b.add("token_embd.weight", {spec.vocab, 1}, byte, std::string(size_t(spec.vocab), '\0'));
  if (!spec.tied_embeddings) b.add("output.weight", {1}, byte, std::string(1, '\0'));
  for (Param p : spec.blocks.front().params())
    if (spec.blocks.front().has_bias(p)) b.add(gguf_name(spec, 0, p) + ".bias", {1}, byte, std::string(1, '\0'));
  if (const Tensor t = gguf_rope_divisors(spec))
    b.add("rope_freqs.weight", t.shape(), ggml_type("F32"), {reinterpret_cast<const char*>(t.data()), t.bytes()});
  const std::string text = gguf_header(metadata, b.table) + b.data;
  const auto owner = std::make_shared<Tensor>(Tensor::empty({int64_t(text.size())}, DType::u8));
  std::memcpy(owner->data(), text.data(), text.size());
  return {"model.gguf", {owner->data(), text.size()}, owner};
}

GgufMetadata gguf_metadata(const ModelSpec& spec, const Json& config, uint32_t file_type) {
  const std::string arch(find_architecture(spec.arch).gguf_name);
  if (arch.empty())
    fail("write", "{}: GGUF files of this family are neither read nor written; it is not known how they spell it",
         spec.arch);
  GgufMetadata m;
  m.text("general.architecture", arch).text("general.type", "model");
  m.u32("general.file_type", file_type).u32("general.quantization_version", 2);
  add_sizes(m, arch, spec, config);
  add_rope(m, arch, global_block(spec).attention.rope);
  add_windows(m, arch, spec);
  add_scales(m, arch, spec, config);
  const Json read = gguf_config(gguf_outline(m, spec));
  const ModelSpec back = find_architecture(read["architectures"][0].get<std::string>()).parse(read);
  if (const std::string what = difference(spec, back); !what.empty())
    fail("write", "{}: {} cannot be said in GGUF's metadata of the architecture \"{}\" as this version writes it",
         spec.arch, what, arch);
  return m;
}

}  // namespace awq
