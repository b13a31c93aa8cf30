#include "formats/gguf.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <numeric>

#include "formats/context.h"
#include "formats/gguf_config.h"
#include "formats/pieces_fixture.h"
#include "io/gguf_builder.h"

namespace awq {
extern const Format kGguf;

namespace {

using nlohmann::json;

#define EXPECT_SAYS(message, part) EXPECT_NE((message).find(part), std::string::npos) << (message)

std::string open_error(const GgufBuilder& b) {
  return error_of([&] { open_gguf(parse_gguf(b)); });
}
json config_of(const GgufBuilder& b) { return gguf_config(parse_gguf(b)); }

// The models of tools/make_gguf_fixtures.py: element (r, c) of a matrix in Hugging Face's order is 32 * block + r +
// c/16, element r of a norm or bias 32 * block + r/16. They were written by the Python package gguf, with the row order
// and the norms that the converter of llama.cpp gives each family.
std::unique_ptr<Checkpoint> fixture(const std::string& family) {
  return kGguf.open(AWQ_TEST_DIR "/fuzz/corpus/gguf/" + family + ".gguf");
}

void expect_formula(const Tensor& stored, int block, const std::string& name) {
  const Tensor t = stored.to(DType::f32);
  const int64_t cols = t.shape()[-1];
  int differing = 0;
  for (int64_t i = 0; i < t.shape().elements(); ++i)
    differing += t.as<float>()[size_t(i)] != float(32 * block + i / cols) + float(i % cols) / 16;
  EXPECT_EQ(differing, 0) << name << " of block " << block;
}

class GgufFamily : public testing::TestWithParam<const char*> {};

TEST_P(GgufFamily, GivesWeightsAsHuggingFaceHasThem) {
  const auto model = fixture(GetParam());
  const ModelSpec& spec = model->spec();
  EXPECT_EQ(model->format(), "gguf");
  EXPECT_EQ(spec.blocks.size(), 2u);
  EXPECT_EQ(spec.dim, 16);
  EXPECT_EQ(spec.vocab, 11);
  EXPECT_EQ(spec.max_context, 128);
  expect_formula(std::get<Tensor>(model->weight(-1, {Role::embed})), 0, "embed");
  expect_pieces_are_the_weights(*model);
  expect_formula(std::get<Tensor>(model->weight(-1, {Role::final_norm})), 0, "final_norm");
  EXPECT_EQ(spec.tied_embeddings, std::string(GetParam()) != "llama");
  if (!spec.tied_embeddings) expect_formula(std::get<Tensor>(model->weight(-1, {Role::head})), 1, "head");
  for (int i = 0; i < 2; ++i) {
    for (Param p : spec.blocks[size_t(i)].params()) {
      expect_formula(std::get<Tensor>(model->weight(i, p)), i, std::string(name_of(p.role)));
      if (spec.blocks[size_t(i)].has_bias(p))
        expect_formula(model->bias(i, p), i, std::string(name_of(p.role)) + " bias");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, GgufFamily,
                         testing::Values("llama", "qwen2", "qwen3", "gemma3", "deepseek2", "glm4moe", "gpt-oss"),
                         [](const auto& test) {
                           return std::string(test.param == std::string("gpt-oss") ? "gpt_oss" : test.param);
                         });

TEST(Gguf, SpecsOfMixtures) {
  const auto deepseek = fixture("deepseek2"), glm = fixture("glm4moe"), oss = fixture("gpt-oss");
  EXPECT_EQ(deepseek->spec().arch, "DeepseekV3ForCausalLM");
  EXPECT_FALSE(deepseek->spec().blocks[0].experts);
  const BlockSpec& b = deepseek->spec().blocks[1];
  EXPECT_EQ(
      std::tuple(b.experts->count, b.experts->active, b.experts->groups, b.experts->active_groups, b.experts->scale,
                 b.experts->normalized, b.experts->correction, b.experts->scores, b.experts->shared_hidden),
      std::tuple(4, 2, 2, 1, 2.5f, true, true, Scores::sigmoid, 24));
  EXPECT_EQ(
      std::tuple(b.attention.head_dim, b.attention.value_dim, b.attention.rope.dims, b.attention.rope.interleaved),
      std::tuple(6, 3, 2, true));
  const float m = 0.1f * std::log(4.f) + 1;  // of the multiplier
  EXPECT_FLOAT_EQ(b.attention.query_scale, m * m / std::sqrt(6.f));
  EXPECT_EQ(glm->spec().arch, "Glm4MoeForCausalLM");
  EXPECT_EQ(std::tuple(glm->spec().blocks.size(), glm->spec().blocks[0].attention.rope.dims), std::tuple(2u, 2));
  const auto list = glm->tensors();
  const auto further = std::ranges::find(list, "blk.2.nextn.eh_proj.weight", &TensorInfo::name);
  ASSERT_NE(further, list.end());
  EXPECT_EQ(further->use, TensorUse::dropped);
  EXPECT_EQ(oss->spec().arch, "GptOssForCausalLM");
  EXPECT_EQ(oss->spec().blocks[0].attention.window, 8);
  EXPECT_EQ(oss->spec().blocks[1].attention.window, std::nullopt);
  EXPECT_EQ(std::tuple(oss->spec().blocks[0].mlp.limit, oss->spec().blocks[0].attention.sinks), std::tuple(7.f, true));
}

TEST(Gguf, SpecsOfTheFamilies) {
  const ModelSpec llama = fixture("llama")->spec(), qwen2 = fixture("qwen2")->spec(), qwen3 = fixture("qwen3")->spec(),
                  gemma = fixture("gemma3")->spec();
  EXPECT_EQ(llama.arch, "LlamaForCausalLM");
  const AttentionSpec& a = llama.blocks[0].attention;
  EXPECT_EQ(std::tuple(a.heads, a.kv_heads, a.head_dim, a.qkv_bias, a.o_bias, a.head_norm),
            std::tuple(4, 2, 4, true, true, HeadNorm::none));
  EXPECT_EQ(a.rope, (RopeSpec{.theta = 500000, .dims = 4}));
  EXPECT_EQ(llama.blocks[0].norm, (NormSpec{.eps = 1e-6f}));
  EXPECT_EQ(qwen2.arch, "Qwen2ForCausalLM");
  EXPECT_TRUE(qwen2.blocks[0].attention.qkv_bias);
  EXPECT_FALSE(qwen2.blocks[0].attention.o_bias);
  EXPECT_EQ(qwen3.arch, "Qwen3ForCausalLM");
  EXPECT_EQ(qwen3.blocks[0].attention.head_norm, HeadNorm::head);
  EXPECT_FALSE(qwen3.blocks[0].attention.qkv_bias);
  EXPECT_EQ(gemma.arch, "Gemma3ForCausalLM");
  EXPECT_EQ(gemma.blocks[0].placement, NormPlacement::both);
  EXPECT_EQ(gemma.blocks[0].norm, (NormSpec{.eps = 1e-6f, .gain_offset = 1}));
  EXPECT_EQ(gemma.blocks[0].attention.window, 8);
  EXPECT_EQ(gemma.blocks[0].attention.query_scale, 0.5f);
}

TEST(Gguf, DetectsByEndingAndByContent) {
  EXPECT_TRUE(kGguf.detect(AWQ_TEST_DIR "/fuzz/corpus/gguf/llama.gguf"));
  EXPECT_FALSE(kGguf.detect(AWQ_TEST_DIR "/fuzz/corpus/gguf"));
  EXPECT_FALSE(kGguf.detect(AWQ_TEST_DIR "/formats/gguf_test.cc"));
  EXPECT_FALSE(kGguf.detect(AWQ_TEST_DIR "/no/such.gguf"));
}

TEST(Gguf, ListsTensorsAsStored) {
  const auto list = fixture("llama")->tensors();
  const auto q = std::ranges::find(list, "blk.1.attn_q.weight", &TensorInfo::name);
  ASSERT_NE(q, list.end());
  EXPECT_EQ(q->type, "F16");
  EXPECT_EQ(q->shape, (Shape{16, 16}));
  EXPECT_EQ(q->bytes, 512u);
}

// A Llama of one block: dim 8, two heads of 4, one of keys and values.
GgufBuilder tiny(const std::string& arch = "llama") {
  GgufBuilder b;
  b.text("general.architecture", arch).u32(arch + ".block_count", 1).u32(arch + ".context_length", 64);
  b.u32(arch + ".embedding_length", 8).u32(arch + ".feed_forward_length", 12);
  b.u32(arch + ".attention.head_count", 2).u32(arch + ".attention.head_count_kv", 1);
  b.f32(arch + ".attention.layer_norm_rms_epsilon", 1e-5f).f32(arch + ".rope.freq_base", 500000);
  const auto add = [&](const std::string& name, uint64_t rows, uint64_t cols) {
    std::vector<float> v(rows * std::max(cols, uint64_t(1)));
    std::iota(v.begin(), v.end(), 0.f);
    b.floats(name, cols ? std::vector{cols, rows} : std::vector{rows}, v);
  };
  add("token_embd.weight", 5, 8);
  add("output_norm.weight", 8, 0);
  for (const char* n : {"attn_norm", "ffn_norm"}) add(fmt::format("blk.0.{}.weight", n), 8, 0);
  for (const char* n : {"attn_q", "attn_output"}) add(fmt::format("blk.0.{}.weight", n), 8, 8);
  for (const char* n : {"attn_k", "attn_v"}) add(fmt::format("blk.0.{}.weight", n), 4, 8);
  for (const char* n : {"ffn_gate", "ffn_up"}) add(fmt::format("blk.0.{}.weight", n), 12, 8);
  add("blk.0.ffn_down.weight", 8, 12);
  return b;
}

// Text has one axis of positions, and no pictures.
TEST(GgufConfig, LanguagesOfModelsThatSeeAreTheFamilies) {
  const json plain = config_of(tiny("qwen2")), seeing = config_of(tiny("qwen2vl").u32("qwen2vl.n_deepstack_layers", 3));
  EXPECT_EQ(seeing, plain);
  EXPECT_EQ(config_of(tiny("qwen3vl")), config_of(tiny("qwen3")));
}

TEST(GgufConfig, LlamaInFull) {
  const json c = config_of(tiny()
                               .u32("llama.vocab_size", 5)
                               .u32("tokenizer.ggml.bos_token_id", 1)
                               .u32("tokenizer.ggml.eos_token_id", 2)
                               .u32("tokenizer.ggml.padding_token_id", 0));
  EXPECT_EQ(
      c,
      json::parse(
          R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "intermediate_size": 12,
    "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-05, "vocab_size": 5, "rope_theta": 500000.0, "rope_scaling": null, "tie_word_embeddings": true,
    "hidden_act": "silu", "attention_bias": false, "mlp_bias": false, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})"));
  EXPECT_EQ(c["rms_norm_eps"].dump(), "1e-05");  // not 9.99999974737e-06
  EXPECT_EQ(open_error(tiny()), "");
}

TEST(GgufConfig, WindowMakesItMistral) {
  const json c = config_of(tiny().u32("llama.attention.sliding_window", 4096));
  EXPECT_EQ(c["architectures"][0], "MistralForCausalLM");
  EXPECT_EQ(c["sliding_window"], 4096);
  EXPECT_EQ(config_of(tiny().u32("llama.attention.sliding_window", 0))["architectures"][0], "LlamaForCausalLM");
}

TEST(GgufConfig, LinearScaling) {
  const json linear = {{"rope_type", "linear"}, {"factor", 8.0}};
  EXPECT_EQ(
      config_of(tiny().text("llama.rope.scaling.type", "linear").f32("llama.rope.scaling.factor", 8))["rope_scaling"],
      linear);
  EXPECT_EQ(config_of(tiny().f32("llama.rope.scale_linear", 8))["rope_scaling"], linear);
  EXPECT_EQ(
      config_of(tiny().text("llama.rope.scaling.type", "none").f32("llama.rope.scaling.factor", 8))["rope_scaling"],
      nullptr);
  EXPECT_EQ(config_of(tiny().f32("llama.rope.scaling.factor", 1))["rope_scaling"], nullptr);
  EXPECT_SAYS(open_error(tiny().text("llama.rope.scaling.type", "longrope")),
              "\"llama.rope.scaling.type\" should be none, linear or yarn");
}

TEST(GgufConfig, YarnScaling) {
  const auto yarn = [](const std::string& arch) {
    return tiny(arch).text(arch + ".rope.scaling.type", "yarn").f32(arch + ".rope.scaling.factor", 8);
  };
  const auto whole = yarn("llama").u32("llama.rope.scaling.original_context_length", 32);
  EXPECT_EQ(config_of(whole)["rope_scaling"],
            (json{{"rope_type", "yarn"}, {"factor", 8.0}, {"original_max_position_embeddings", 32}}));
  EXPECT_EQ(open_gguf(parse_gguf(whole))->spec().max_context, 256);
  EXPECT_SAYS(open_error(yarn("llama")), "the metadata has no \"llama.rope.scaling.original_context_length\"");
  const auto fast = yarn("llama").u32("llama.rope.scaling.original_context_length", 32);
  EXPECT_EQ(config_of(GgufBuilder(fast).f32("llama.rope.scaling.yarn_beta_fast", 16))["rope_scaling"]["beta_fast"], 16);
  EXPECT_SAYS(open_error(GgufBuilder(fast).f32("llama.rope.scaling.yarn_ext_factor", 0.5f)), "yarn_ext_factor");
  EXPECT_SAYS(open_error(yarn("gemma3")), "\"gemma3.rope.scaling.type\" should be none or linear in this family");
}

TEST(GgufModel, NamesItsFileWhereAContextIsTooLong) {
  const auto model = open_gguf(parse_gguf(tiny()));
  require_context(*model, "eval", "--window 64", 64);
  EXPECT_EQ(error_of([&] { require_context(*model, "eval", "--window 65", 65); }),
            "[eval] " + model->described_in() +
                ": the model was made for 64 tokens (context_length 64, no rope scaling), but --window 65 needs 65; "
                "what it computes at positions that it never saw means nothing. Ask for fewer; or, where its authors "
                "give a scaling rule for more, such as yarn, take a file that was converted with it");
}

// The divisors as llama.cpp's converter computes them, in single precision.
std::vector<float> divisors(float factor, int dims, float context = 8192) {
  std::vector<float> d;
  for (int i = 0; i < dims; i += 2) {
    const float wavelength = 2 * 3.14159265358979f / (1 / std::pow(500000.f, float(i) / float(dims)));
    const float smooth = (context / wavelength - 1) / (4 - 1);
    d.push_back(wavelength < context / 4 ? 1.f : wavelength > context ? factor : 1 / ((1 - smooth) / factor + smooth));
  }
  return d;
}

GgufBuilder long_heads(const std::vector<float>& d) {  // heads of 128 channels, as Llama 3 has
  return tiny()
      .u32("llama.attention.key_length", 128)
      .u32("llama.attention.value_length", 128)
      .floats("rope_freqs.weight", {d.size()}, d);
}

TEST(GgufConfig, Llama3ScalingIsRecognisedFromItsDivisors) {
  for (const float factor : {8.f, 32.f})
    EXPECT_EQ(config_of(long_heads(divisors(factor, 128)))["rope_scaling"],
              (json{{"rope_type", "llama3"},
                    {"factor", factor},
                    {"low_freq_factor", 1.0},
                    {"high_freq_factor", 4.0},
                    {"original_max_position_embeddings", 8192}}));
  EXPECT_EQ(config_of(long_heads(std::vector<float>(64, 1.f)))["rope_scaling"], nullptr);
  auto changed = divisors(8, 128);
  changed[30] *= 1.001f;  // on the ramp
  EXPECT_SAYS(open_error(long_heads(changed)),
              "rope_freqs.weight is not Llama 3.1's scaling by 8 of 8192 positions (divisor 30 is");
  EXPECT_SAYS(open_error(long_heads(divisors(8, 128, 4096))), "rope_freqs.weight is not Llama 3.1's scaling");
  EXPECT_SAYS(open_error(long_heads(std::vector<float>(64, NAN))), "rope_freqs.weight is not Llama 3.1's scaling");
  EXPECT_SAYS(open_error(long_heads(divisors(8, 64))), "rope_freqs.weight is [32], expected one divisor per pair");
  EXPECT_SAYS(open_error(long_heads(divisors(8, 128)).f32("llama.rope.scaling.factor", 2)),
              "none beside rope_freqs.weight");
}

TEST(GgufConfig, Gemma3) {
  const auto gemma = [] { return tiny("gemma3").u32("gemma3.attention.sliding_window", 512); };
  const json c = config_of(gemma());
  EXPECT_EQ(c["layer_types"], json({"sliding_attention"}));
  EXPECT_EQ(c["rope_theta"], 500000.0);
  EXPECT_EQ(c["rope_local_base_freq"], 10000.0);
  EXPECT_EQ(c["query_pre_attn_scalar"], 4);
  EXPECT_EQ(c["hidden_activation"], "gelu_pytorch_tanh");
  EXPECT_EQ(c["final_logit_softcapping"], nullptr);
  const auto blocks = [&](int n) {
    return gemma().without("gemma3.block_count").u32("gemma3.block_count", uint32_t(n));
  };
  const json types = config_of(blocks(13))["layer_types"];
  for (size_t i = 0; i < 13; ++i) EXPECT_EQ(types[i], i % 6 == 5 ? "full_attention" : "sliding_attention") << i;
  EXPECT_EQ(config_of(blocks(2).u32("gemma3.attention.sliding_window_pattern", 2))["layer_types"],
            json({"sliding_attention", "full_attention"}));
  EXPECT_EQ(config_of(blocks(2).numbers<uint8_t>("gemma3.attention.sliding_window_pattern", GgufType::boolean,
                                                 {0, 1}))["layer_types"],
            json({"full_attention", "sliding_attention"}));
  EXPECT_EQ(config_of(tiny("gemma3"))["layer_types"], json({"full_attention"}));
  EXPECT_EQ(config_of(blocks(62))["query_pre_attn_scalar"], 4);  // 8 / 2: dim over heads
  EXPECT_EQ(config_of(blocks(62)
                          .u32("gemma3.attention.key_length", 6)
                          .u32("gemma3.attention.value_length", 6))["query_pre_attn_scalar"],
            4);
  EXPECT_EQ(config_of(blocks(2)
                          .u32("gemma3.attention.key_length", 6)
                          .u32("gemma3.attention.value_length", 6))["query_pre_attn_scalar"],
            6);
  EXPECT_SAYS(open_error(blocks(2).numbers<uint8_t>("gemma3.attention.sliding_window_pattern", GgufType::boolean, {0})),
              "a flag for each of 2 blocks");
  EXPECT_SAYS(open_error(gemma().f32("gemma3.final_logit_softcapping", 30)), "final_logit_softcapping");
  EXPECT_SAYS(open_error(gemma().f32("gemma3.attn_logit_softcapping", 50)),
              "\"gemma3.attn_logit_softcapping\" is not understood");
}

TEST(GgufConfig, RefusesWhatItDoesNotUnderstand) {
  EXPECT_SAYS(open_error(tiny("mamba")),
              "the architecture \"mamba\" is not known; this version reads llama, qwen2, qwen3, qwen2vl,");
  EXPECT_SAYS(open_error(tiny().f32("llama.logit_scale", 2)), "\"llama.logit_scale\" is not understood");
  EXPECT_SAYS(open_error(tiny("qwen2").u32("qwen2.attention.sliding_window", 5)),
              "\"qwen2.attention.sliding_window\" is not understood");
  EXPECT_EQ(open_error(tiny().u32("llama.expert_count", 0)), "");
  EXPECT_SAYS(open_error(tiny().u32("llama.expert_count", 8)), "\"llama.expert_used_count\"");
  EXPECT_SAYS(open_error(tiny("qwen2").u32("qwen2.expert_count", 8)), "this family has no mixtures of experts");
  EXPECT_SAYS(open_error(tiny().u32("llama.rope.dimension_count", 2)),
              "\"llama.rope.dimension_count\" should be 4, the size of a head");
  EXPECT_SAYS(open_error(tiny().u32("llama.attention.value_length", 8)),
              "\"llama.attention.value_length\" should be 4");
  EXPECT_SAYS(open_error(tiny().u32("llama.vocab_size", 6)),
              "\"llama.vocab_size\" should be 5, as token_embd.weight has rows, but is 6");
  EXPECT_SAYS(open_error(tiny().without("llama.context_length")), "the metadata has no \"llama.context_length\"");
  EXPECT_SAYS(open_error(tiny().without("llama.block_count").u32("llama.block_count", 0)),
              "\"llama.block_count\" should be a positive 32-bit number, but is 0");
  EXPECT_SAYS(open_error(tiny().without("llama.block_count").u32("llama.block_count", 4000000)),
              "\"llama.block_count\" should be at most 1024");
  EXPECT_SAYS(open_error(tiny().without("llama.attention.head_count").u32("llama.attention.head_count", 3)),
              "a multiple of the 3 heads");
  EXPECT_SAYS(open_error(tiny().u32("tokenizer.ggml.bos_token_id", 5)),
              "\"tokenizer.ggml.bos_token_id\" is 5, but there are 5 tokens");
}

TEST(GgufModel, ChecksItsTensors) {
  EXPECT_SAYS(open_error(tiny().without_tensor("blk.0.ffn_up.weight")), "the tensor blk.0.ffn_up.weight is missing");
  EXPECT_SAYS(open_error(tiny().without_tensor("token_embd.weight")), "the tensor token_embd.weight is missing");
  const std::vector<float> zeros(64);
  EXPECT_SAYS(open_error(tiny().without_tensor("blk.0.attn_k.weight").floats("blk.0.attn_k.weight", {8, 8}, zeros)),
              "blk.0.attn_k.weight has the shape [8, 8], expected [4, 8] from the metadata");
  EXPECT_SAYS(open_error(tiny().floats("blk.0.attn_sinks.weight", {8}, std::vector<float>(8))),
              "the tensor blk.0.attn_sinks.weight [8] is not part of LlamaForCausalLM");
  EXPECT_SAYS(open_error(tiny().floats("blk.1.ffn_up.weight", {8, 8}, zeros)),
              "the tensor blk.1.ffn_up.weight [8, 8] is not part of");
  EXPECT_SAYS(open_error(tiny("qwen3").floats("rope_freqs.weight", {2}, {1, 1})),
              "blk.0.attn_k_norm.weight is missing");
  EXPECT_SAYS(
      open_error(
          tiny().without_tensor("output_norm.weight").tensor("output_norm.weight", {8}, 26, std::string(32, '\0'))),
      "output_norm.weight is stored as I32; this version reads F32");
}

TEST(GgufModel, GemmaNormsGiveTheStoredGainBack) {
  // 1 + w must be the stored gain: bit by bit from 1/2 on, and to 2^-25 below.
  const std::vector<float> gains = {1, 0.5f, 1.2345678f, 3.4567891f, 97.123459f, 0.49999997f, 1e-8f, 0.123456789f};
  GgufBuilder b = tiny("gemma3");
  for (const char* n : {"post_attention_norm", "post_ffw_norm"})
    b.floats(fmt::format("blk.0.{}.weight", n), {8}, gains);
  for (const char* n : {"attn_q_norm", "attn_k_norm"}) b.floats(fmt::format("blk.0.{}.weight", n), {4}, {1, 2, 3, 4});
  const auto model = open_gguf(parse_gguf(b));
  const Tensor w = std::get<Tensor>(model->weight(0, {Role::attn_post_norm}));
  for (size_t i = 0; i < gains.size(); ++i) {
    const float sum = w.as<float>()[i] + 1;
    EXPECT_LE(std::abs(double(sum) - double(gains[i])), gains[i] < 0.5f ? 0x1p-25 : 0) << i;
  }
}

// The two real models; sums by the Python package gguf, with the rows of q and k un-permuted in numpy.
std::unique_ptr<Checkpoint> real_model(const char* variable) {
  const char* path = std::getenv(variable);
  return path ? kGguf.open(path) : nullptr;
}

TEST(GgufRealModel, SmolLM2) {
  const auto model = real_model("AWQ_SMOLLM2_GGUF");
  if (!model) GTEST_SKIP() << "set AWQ_SMOLLM2_GGUF to SmolLM2-135M-Instruct.Q4_1.gguf";
  EXPECT_GT(expect_pieces_are_the_weights(*model), 50);  // heads of q and k in bands, the embedding in many
  EXPECT_EQ(model->config(),
            json::parse(R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 576,
    "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64,
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-05, "vocab_size": 49152, "rope_theta": 100000.0, "rope_scaling": null,
    "tie_word_embeddings": true, "hidden_act": "silu", "attention_bias": false, "mlp_bias": false, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 2})"));
  uint64_t q = 0, k = 0;
  for (int i = 0; i < 30; ++i) {
    q = q * 31 + fingerprint(std::get<Tensor>(model->weight(i, {Role::q})));
    k = k * 31 + fingerprint(std::get<Tensor>(model->weight(i, {Role::k})));
  }
  EXPECT_EQ(q, 0xeaf0203d9e939a00u);
  EXPECT_EQ(k, 0xe0872d6518925a00u);
}

// Google published the gains w of 1 + w in bfloat16. That every w we return has a mantissa of 8 bits is the evidence
// that the file holds 1 + w, and that nothing was lost.
TEST(GgufRealModel, Gemma3NormsAreThePublishedOnes) {
  const auto model = real_model("AWQ_GEMMA3_GGUF");
  if (!model) GTEST_SKIP() << "set AWQ_GEMMA3_GGUF to gemma-3-270m-q4_k_m.gguf";
  const auto longer_than_bf16 = [&](int block, Param p) {
    const Tensor w = std::get<Tensor>(model->weight(block, p));
    return std::ranges::count_if(w.as<float>(), [](float v) { return (std::bit_cast<uint32_t>(v) & 0xffff) != 0; });
  };
  EXPECT_EQ(longer_than_bf16(-1, {Role::final_norm}), 0);
  for (int i = 0; i < int(model->spec().blocks.size()); ++i) {
    for (Param p : model->spec().blocks[size_t(i)].params())
      EXPECT_EQ(is_norm(p.role) ? longer_than_bf16(i, p) : 0, 0) << i << " " << name_of(p.role);
  }
  EXPECT_EQ(model->spec().blocks[5].attention.window, std::nullopt);
  EXPECT_EQ(model->spec().blocks[4].attention.window, 512);
  EXPECT_EQ(model->spec().blocks[5].attention.rope.theta, 1e6f);
  EXPECT_EQ(model->spec().blocks[4].attention.rope.theta, 1e4f);
}

}  // namespace
}  // namespace awq
