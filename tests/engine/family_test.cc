// Every family quantized, written, read and run; what that costs is docs/models.md.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <optional>
#include <random>
#include <set>

#include "bench/random_model.h"
#include "engine/golden_fixture.h"
#include "formats/folder.h"
#include "formats/load.h"
#include "formats/params.h"
#include "io/gguf.h"
#include "model/stream.h"
#include "quantizer/quantize.h"

namespace awq {
namespace {

namespace fs = std::filesystem;
using golden::Expected;

constexpr int kFamilyGroup = 32, kFamilySequences = 32, kFamilyLength = 32;

struct Scratch {
  explicit Scratch(const std::string& name = "files")
      : path(fs::temp_directory_path() / ("awq-family-test-" + name + std::to_string(::getpid()))) {
    fs::remove_all(path);
    fs::create_directory(path);
  }
  ~Scratch() { fs::remove_all(path); }
  fs::path path;
};

std::vector<std::vector<int32_t>> random_text(int vocab, unsigned seed) {
  std::mt19937 rng(seed);
  std::vector<std::vector<int32_t>> text(kFamilySequences);
  for (auto& s : text)
    for (int i = 0; i < kFamilyLength; ++i) s.push_back(int32_t(rng() % uint32_t(vocab)));
  return text;
}

/// Writes the model's 4-bit version to `out`, as AutoAWQ has it or, with `floats`, its values.
std::vector<BlockResult> quantize_to(const fs::path& out, Device& d, const Checkpoint& source, std::string_view method,
                                     bool floats) {
  const QuantSpec quant{.bits = 4, .group_size = kFamilyGroup};
  const auto sink = floats ? create_hf(out, source.config(), source.spec())
                           : create_autoawq(out, source.config(), source.spec(), quant);
  const auto how = find_method(method).make();
  const Scratch states("states");
  std::optional<HiddenFiles> hidden;
  if (how->needs_calibration()) {
    hidden.emplace(states.path, kFamilySequences * kFamilyLength, kFamilyLength, stream_width(source.spec()));
    embed_tokens(*d.backend, source, random_text(source.spec().vocab, 7), *hidden);
  }
  std::vector<BlockResult> results;
  quantize_blocks({.source = source,
                   .sink = *sink,
                   .method = *how,
                   .spec = quant,
                   .head = {},
                   .hidden = hidden ? &*hidden : nullptr,
                   .calibration = {},
                   .dev = *d.backend,
                   .host = {d.pool, d.kernels},
                   .progress = {},
                   .finished = [&](const BlockResult& b) { results.push_back(b); }},
                  0);
  sink->finish();
  return results;
}

/// Sum over positions of sum p (log p - log q), in nats.
double divergence(const Tensor& p_logits, const Tensor& q_logits) {
  const auto log_sum = [](std::span<const float> v) {
    double s = 0;
    for (float x : v) s += std::exp(double(x));
    return std::log(s);
  };
  double sum = 0;
  for (int64_t t = 0; t < p_logits.shape()[0]; ++t) {
    const auto p = p_logits.rows(t, t + 1).as<float>(), q = q_logits.rows(t, t + 1).as<float>();
    const double lp = log_sum(p), lq = log_sum(q);
    for (size_t i = 0; i < p.size(); ++i) sum += std::exp(double(p[i]) - lp) * (double(p[i]) - lp - double(q[i]) + lq);
  }
  return sum;
}

/// A row of docs/models.md.
struct Measured {
  std::string fixture, architecture;
  double logits = 0, fold = 0, rounding = 0, awq = 0;
};

class Family : public testing::TestWithParam<std::string> {
 protected:
  Tensor logits_of(const fs::path& model) { return golden::run(device_, model_of(model), expected_.ids); }
  Model model_of(const fs::path& model) { return load_model(*device_.backend, *Checkpoint::open(model)); }
  /// Mean divergence from the original on text that was not calibrated with.
  double divergence_of(const fs::path& model) {
    const Model original = model_of(golden::folder(GetParam())), rounded = model_of(model);
    double sum = 0;
    for (const auto& text : random_text(original.spec.vocab, 8))
      sum += divergence(golden::run(device_, original, text), golden::run(device_, rounded, text));
    return sum / (kFamilySequences * kFamilyLength);
  }
  Scratch scratch_;
  Device device_{2, ""};
  Expected expected_{GetParam()};
  std::unique_ptr<Checkpoint> source_ = Checkpoint::open(golden::folder(GetParam()));
};

// The table is read in bands there, and positions and norms come after: the same bits as at once.
TEST_P(Family, CalibrationBeginsWithTheModelsEmbedding) {
  const auto text = random_text(source_->spec().vocab, 7);
  HiddenFiles hidden(scratch_.path, kFamilySequences * kFamilyLength, kFamilyLength, stream_width(source_->spec()));
  embed_tokens(*device_.backend, *source_, text, hidden);
  for (int i : {0, kFamilySequences - 1}) {
    const Sequence s{nullptr, 0, kFamilyLength};
    const Tensor want =
        embed_forward(*device_.backend, source_->spec(), load_embedding(*source_), text[size_t(i)], {&s, 1});
    const Tensor got = hidden_of(hidden.input(0).read(i * kFamilyLength, (i + 1) * kFamilyLength), source_->spec().dim);
    EXPECT_TRUE(std::ranges::equal(got.as<float>(), want.as<float>()));
  }
}

// What is handed from block to block is all that blocks read: run one by one, as calibration runs them, they make the
// bits that the model makes.
TEST_P(Family, BlocksRunOneByOneAreTheModel) {
  const Model m = model_of(golden::folder(GetParam()));
  const auto n = int(expected_.ids.size());
  const Sequence s{nullptr, 0, n};
  Tensor x = stream_of(m.spec, embed_forward(*device_.backend, m.spec, m.embed, expected_.ids, {&s, 1}), expected_.ids);
  for (const Block& b : m.blocks) run_sequences(*device_.backend, b, n, x);
  Tensor got = hidden_of(x, m.spec.dim);
  final_norm_forward(*device_.backend, m, got);
  const auto kv = device_.backend->kv_cache(m.spec.blocks);
  const Sequence whole{kv.get(), 0, n};
  EXPECT_TRUE(same_bytes(got, hidden_forward(*device_.backend, m, expected_.ids, {&whole, 1})));
}

// What is written is what was decided: the packed file computes what its values do in float, up to activations of 16
// bits (2^-16 of the largest of their group, which is a few times what is usual, at four places of a block) and, where
// there are biases, their 11 bits.
TEST_P(Family, PackedFileComputesItsValues) {
  for (const char* method : {"rtn", "awq"}) {
    quantize_to(scratch_.path / fmt::format("packed-{}", method), device_, *source_, method, false);
    quantize_to(scratch_.path / fmt::format("values-{}", method), device_, *source_, method, true);
    const Tensor a = logits_of(scratch_.path / fmt::format("packed-{}", method)),
                 b = logits_of(scratch_.path / fmt::format("values-{}", method));
    bool biased = false;
    for (Param p : source_->spec().blocks[0].params()) biased |= source_->spec().blocks[0].has_bias(p);
    const double places = double(4 * source_->spec().blocks.size() + 1);
    EXPECT_LT(golden::relative_difference(a, b), places * (0x1p-14 + (biased ? 0x1p-12 : 0))) << method;
  }
}

// What is not the language, bit for bit; and the file says that it is in floats.
TEST_P(Family, OtherPartsAreCarriedOver) {
  const std::vector<std::string> names = source_->spec().carried;
  if (names.empty()) return;  // a language alone
  quantize_to(scratch_.path / "packed", device_, *source_, "rtn", false);
  quantize_to(scratch_.path / "values", device_, *source_, "rtn", true);
  for (const char* folder : {"packed", "values"}) {
    const auto written = Checkpoint::open(scratch_.path / folder);
    EXPECT_EQ(written->spec().carried, names);
    for (const std::string& name : names) {
      const Tensor a = source_->carried(name), b = written->carried(name);
      EXPECT_EQ(a.shape(), b.shape());
      EXPECT_EQ(a.dtype(), b.dtype());
      EXPECT_TRUE(same_bytes(a, b)) << name;
    }
  }
  const auto floats =
      Checkpoint::open(scratch_.path / "packed")->config()["quantization_config"]["modules_to_not_convert"];
  for (const std::string& name : names)
    EXPECT_TRUE(std::ranges::any_of(floats, [&](const auto& f) {
      return name.starts_with(f.template get<std::string>() + ".");
    })) << name;
}

TEST_P(Family, FourBitsAreNotWorseThanRounding) {
  Measured m{.fixture = GetParam(), .architecture = source_->spec().arch};
  m.logits = golden::relative_difference(logits_of(golden::folder(GetParam())), expected_.logits);
  quantize_to(scratch_.path / "rtn", device_, *source_, "rtn", true);
  for (const BlockResult& r : quantize_to(scratch_.path / "awq", device_, *source_, "awq", true)) {
    m.fold = std::max(m.fold, r.fold_error);
    for (const GroupResult& g : r.solution.groups) EXPECT_LE(g.loss, g.identity_loss);
  }
  m.rounding = divergence_of(scratch_.path / "rtn");
  m.awq = divergence_of(scratch_.path / "awq");
  EXPECT_LT(m.awq, m.rounding);
  EXPECT_GT(m.awq, 0);
  if (const char* file = std::getenv("AWQ_MODELS_ROWS"))
    std::ofstream(file, std::ios::app) << fmt::format("| {} | {} | {:.1e} | {:.1e} | {:.2g} | {:.2g} |\n", m.fixture,
                                                      m.architecture, m.logits, m.fold, m.awq, m.rounding);
}

// Some names and shapes as the gguf package has them (gguf.constants, and its order of dimensions turned round).
const std::map<std::string, std::map<std::string, Shape>> kInGguf = {
    {"mixtral",
     {{"blk.1.ffn_gate_inp.weight", {5, 32}},
      {"blk.1.ffn_gate_exps.weight", {5, 32, 32}},
      {"blk.1.ffn_up_exps.weight", {5, 32, 32}},
      {"blk.1.ffn_down_exps.weight", {5, 32, 32}}}},
    {"qwen2-moe",
     {{"blk.1.ffn_gate_inp.weight", {6, 32}},
      {"blk.1.ffn_gate_exps.weight", {6, 32, 32}},
      {"blk.1.ffn_gate_inp_shexp.weight", {32}},
      {"blk.1.ffn_up_shexp.weight", {64, 32}},
      {"blk.1.ffn_down_shexp.weight", {32, 64}}}},
    {"granite", {{"blk.1.attn_q.weight", {32, 32}}}},
    {"granite-moe", {{"blk.1.ffn_gate_exps.weight", {5, 32, 32}}, {"blk.1.ffn_gate_inp.weight", {5, 32}}}},
    {"granite-moe-shared", {{"blk.1.ffn_up_shexp.weight", {64, 32}}, {"blk.0.ffn_down_exps.weight", {5, 32, 32}}}},
    {"olmoe", {{"blk.1.ffn_up_exps.weight", {6, 32, 32}}, {"blk.1.attn_k_norm.weight", {16}}}},
    {"qwen3-moe", {{"blk.0.ffn_down_exps.weight", {5, 32, 32}}, {"blk.0.attn_q_norm.weight", {16}}}},
    {"deepseek2",
     {{"blk.0.ffn_gate.weight", {64, 32}},
      {"blk.1.attn_q_a.weight", {32, 32}},
      {"blk.1.attn_q_b.weight", {64, 32}},
      {"blk.1.attn_kv_a_mqa.weight", {40, 32}},
      {"blk.1.attn_kv_b.weight", {128, 32}},
      {"blk.1.ffn_up_shexp.weight", {64, 32}},
      {"blk.1.ffn_down_exps.weight", {6, 32, 32}}}},
    {"deepseek2-lite", {{"blk.1.attn_q.weight", {64, 32}}, {"blk.1.attn_kv_a_norm.weight", {32}}}},
    {"deepseek3", {{"blk.1.exp_probs_b.bias", {6}}, {"blk.1.attn_output.weight", {32, 96}}}},
    {"glm4-moe",
     {{"blk.1.exp_probs_b.bias", {6}},
      {"blk.0.post_attention_norm.weight", {32}},
      {"blk.1.attn_q_norm.weight", {16}},
      {"blk.1.ffn_gate_shexp.weight", {32, 32}}}},
    {"gpt-oss",
     {{"blk.1.attn_sinks.weight", {4}},
      {"blk.1.ffn_gate_inp.bias", {4}},
      {"blk.0.post_attention_norm.weight", {32}},
      {"blk.0.ffn_gate_exps.bias", {4, 32}},
      {"blk.0.ffn_down_exps.weight", {4, 32, 32}}}},
    {"gpt2", {{"position_embd.weight", {64, 32}}, {"blk.0.attn_qkv.weight", {96, 32}}, {"blk.0.attn_qkv.bias", {96}}}},
    {"bloom", {{"token_embd_norm.bias", {32}}, {"blk.1.attn_qkv.weight", {96, 32}}}},
    {"cohere", {{"blk.1.attn_q_norm.weight", {4, 8}}, {"blk.1.attn_k_norm.weight", {2, 8}}}},
    {"phi3", {{"blk.1.attn_qkv.weight", {64, 32}}, {"blk.1.ffn_up.weight", {128, 32}}}},
    {"glm4", {{"blk.1.ffn_up.weight", {128, 32}}, {"blk.1.post_ffw_norm.weight", {32}}}},
    {"phi", {{"output.bias", {96}}, {"blk.0.attn_norm.bias", {32}}}},
    {"minicpm3", {{"rope_factors_long.weight", {4}}, {"blk.1.attn_kv_b.weight", {128, 32}}}}};

// What files do not say is the published models'; fixtures have other values, which tell more.
const char* const kSliding = "sliding_attention";
const std::map<std::string, nlohmann::json> kPublished = {
    {"gpt-oss", {{"swiglu_limit", 7.0}}},
    {"gemma2", {{"query_pre_attn_scalar", 16}}},
    {"gemma3", {{"query_pre_attn_scalar", 32}}},
    {"bigcode-heads", {{"activation_function", "gelu_pytorch_tanh"}}},
    {"neox-sequential", {{"hidden_act", "gelu"}}},
    {"internlm2", {{"rope_scaling", nullptr}}},
    {"cohere2", {{"layer_types", {kSliding, kSliding, kSliding}}}},
    {"olmo3", {{"layer_types", {kSliding, kSliding, kSliding}}, {"rope_scaling", nullptr}}},
    {"smollm3", {{"no_rope_layers", {1, 1, 1}}}},
    {"minicpm3", {{"dim_model_base", 256}}}};

/// The fixture, with what a published model has in its config.
fs::path as_published(const std::string& name, const fs::path& folder) {
  const auto it = kPublished.find(name);
  if (it == kPublished.end()) return golden::folder(name);
  fs::copy(golden::folder(name), folder);
  auto config = nlohmann::json::parse(read_text(folder / "config.json"));
  config.update(it->second);
  std::ofstream(folder / "config.json") << config;
  return folder;
}

void write_as(const char* format, const fs::path& out, const Checkpoint& source) {
  const auto sink = find_format(format).create(out, source.config(), source.spec(), {});
  sink->begin();
  for (const auto& [block, p] : params_of(source.spec())) {
    sink->put(block, p, source.weight(block, p));
    if (has_bias(source.spec(), block, p)) sink->put_bias(block, p, source.bias(block, p));
  }
  sink->finish();
}

// Of these llama.cpp rotates neighbours, of others halves of a head, which was seen by its logits.
const std::set<std::string> kPairs = {"mixtral", "granite",    "granite-moe", "granite-moe-shared", "minicpm",
                                      "olmo",    "smollm3",    "internlm2",   "internlm3",          "llama",
                                      "mistral", "llama-bias", "llama-yarn"};

void expect_order_of_queries(const std::string& fixture, const Checkpoint& source, const fs::path& file) {
  const Gguf written(file);
  const GgufTensor* q = written.find("blk.0.attn_q.weight");
  if (!q) return;
  EXPECT_EQ(same_bytes(written.tensor(*q), std::get<Tensor>(source.weight(0, {Role::q}))), !kPairs.contains(fixture));
}

class GgufOfFamily : public testing::TestWithParam<std::string> {};

std::map<std::string, Shape> names_in_gguf(const std::string& fixture) {
  const auto it = kInGguf.find(fixture);
  return it == kInGguf.end() ? std::map<std::string, Shape>{} : it->second;
}

// All experts of a block are one tensor there. Of a model some of whose blocks have one MLP behind others, which the
// metadata cannot say, the first block.
TEST_P(GgufOfFamily, ComputesTheSame) {
  const Scratch scratch;
  Device device{2, ""};
  const Expected expected(GetParam());
  const auto whole = Checkpoint::open(as_published(GetParam(), scratch.path / "published"));
  const bool mixed =
      !std::ranges::is_sorted(whole->spec().blocks, {}, [](const BlockSpec& b) { return bool(b.experts); });
  const auto source = first_blocks(*whole, mixed ? 1 : int(whole->spec().blocks.size()));
  write_as("gguf-bf16", scratch.path / "out", *source);
  const auto back = Checkpoint::open(scratch.path / "out");
  EXPECT_EQ(back->format(), "gguf");
  expect_order_of_queries(GetParam(), *source, scratch.path / "out" / "model.gguf");
  const auto tensors = back->tensors();
  for (const auto& [name, shape] : names_in_gguf(GetParam())) {
    const auto t = std::ranges::find(tensors, name, &TensorInfo::name);
    ASSERT_NE(t, tensors.end()) << name;
    EXPECT_EQ(t->shape, shape) << name;
  }
  const Tensor a = golden::run(device, load_model(*device.backend, *source), expected.ids),
               b = golden::run(device, load_model(*device.backend, *back), expected.ids);
  EXPECT_LT(golden::relative_difference(b, a), 3e-5);  // routers are F32 there, multiplied by other kernels
  if (!mixed && !kPublished.contains(GetParam())) {
    EXPECT_LT(golden::relative_difference(b, expected.logits), 6e-5);
  }
}

INSTANTIATE_TEST_SUITE_P(Families, GgufOfFamily,
                         testing::Values("mixtral", "qwen2-moe", "qwen3-moe", "olmoe", "granite", "granite-moe",
                                         "granite-moe-shared", "deepseek2", "deepseek2-lite", "deepseek3", "glm4-moe",
                                         "gpt-oss", "minicpm3", "gemma", "gemma2", "gemma3", "minicpm", "olmo", "olmo2",
                                         "olmo3", "smollm3", "starcoder2", "nemotron", "cohere", "cohere2", "internlm2",
                                         "internlm3", "exaone", "phi", "phi3", "phi4", "glm", "glm4", "chatglm",
                                         "stablelm", "stablelm-parallel", "gpt2", "bigcode", "bigcode-heads", "neox",
                                         "neox-sequential", "bloom", "mpt", "qwen", "llama", "llama-bias", "llama-yarn",
                                         "mistral", "qwen2", "qwen3"),
                         golden::name_of_case);

TEST(GgufOfFamilies, AreRefusedWhereSomeBlocksHaveOneMlp) {
  const Scratch scratch;
  const auto source = Checkpoint::open(golden::folder("qwen3-moe"));
  EXPECT_THROW(write_as("gguf-bf16", scratch.path / "out", *source), Error);
}

TEST(ModelsPage, HasARowForEveryFixtureAndNoOther) {
  std::vector<std::string> rows;
  std::ifstream page(AWQ_TEST_DIR "/../docs/models.md");
  bool table = false;
  for (std::string line; std::getline(page, line); table |= line.starts_with("| ---"))
    if (table) rows.push_back(line.substr(2, line.find(' ', 2) - 2));
  EXPECT_EQ(rows, golden::names()) << "run tools/models_page.sh";
}

INSTANTIATE_TEST_SUITE_P(Families, Family, testing::ValuesIn(golden::names()), golden::name_of_case);

}  // namespace
}  // namespace awq
