// Real config.json files of the shared test data: those of known families become specs, whose sizes are the published
// ones; the others are refused by name.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "formats/params.h"

namespace awq {
namespace {

namespace fs = std::filesystem;

std::string architecture_of(const nlohmann::json& config) { return config.at("architectures").at(0); }

ModelSpec spec_of_file(const fs::path& file) {
  const auto config = nlohmann::json::parse(std::ifstream(file));
  return find_architecture(architecture_of(config)).parse(config);
}

bool known(const std::string& name) {
  for (const Architecture& a : architectures())
    if (a.hf_name == name) return true;
  return false;
}

class RealConfigs : public testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(root_)) GTEST_SKIP() << "needs the shared test data (AWQ_SHARED_DATA)";
  }
  fs::path root_ = fs::path(AWQ_SHARED_DIR) / "data" / "configs";
};

TEST_F(RealConfigs, ParseOrAreRefusedByName) {
  int parsed = 0, refused = 0;
  for (const auto& entry : fs::recursive_directory_iterator(root_)) {
    if (entry.path().filename() != "config.json") continue;
    SCOPED_TRACE(entry.path());
    const auto config = nlohmann::json::parse(std::ifstream(entry.path()));
    const std::string name = architecture_of(config);
    try {
      const ModelSpec m = spec_of_file(entry.path());
      EXPECT_GT(parameter_count(m), 0);
      EXPECT_GT(m.max_context, 0);
      ++parsed;
    } catch (const Error& e) {
      EXPECT_FALSE(known(name)) << e.what();
      EXPECT_NE(std::string(e.what()).find('"' + name + "\" is not known; this version has: LlamaForCausalLM, "),
                std::string::npos)
          << e.what();
      ++refused;
    }
  }
  EXPECT_GE(parsed, 44);
  EXPECT_GE(refused, 10);
}

struct PublishedCount {
  const char* model;
  int64_t parameters;  // as the model's page on the hub counts its tensors
};
constexpr PublishedCount kPublishedCounts[] = {{"Llama2/llama-2-7b-chat-hf", 6'738'415'616},
                                               {"Llama2/llama-2-13b-chat-hf", 13'015'864'320},
                                               {"Llama3/Meta-Llama-3-8B-Instruct", 8'030'261'248},
                                               {"Llama3_1/Meta-Llama-3.1-8B-Instruct", 8'030'261'248},
                                               {"Mistral/Mistral-7B-Instruct-v0.2", 7'241'732'096},
                                               {"Yi/Yi-6B-Chat", 6'061'035'520},
                                               {"Qwen2/Qwen2-1.5B-Instruct", 1'543'714'304},
                                               {"Qwen2/Qwen2-7B-Instruct", 7'615'616'512},
                                               {"Qwen2/Qwen2-72B-Instruct", 72'706'203'648},
                                               {"Qwen2_5/Qwen2.5-3B-Instruct", 3'085'938'688},
                                               {"Qwen2_5/QWQ-32B", 32'763'876'352},
                                               {"Qwen/Qwen-7B-Chat", 7'721'324'544},
                                               {"Phi-3/Phi-3-mini-4k-instruct", 3'821'079'552},
                                               {"ChatGLM3/chatglm3-6b", 6'243'584'000},
                                               {"GLM4/glm-4-9b-chat", 9'399'951'360},
                                               {"Baichuan2/Baichuan2-7B", 7'505'973'248},
                                               // Of the language that is in them:
                                               {"Qwen2_VL/Qwen2-VL-2B-Instruct", 1'543'714'304},
                                               {"Qwen2_5_VL/Qwen2_5-VL", 3'085'938'688},
                                               {"Qwen3_VL", 4'022'468'096}};

TEST_F(RealConfigs, HaveThePublishedNumberOfParameters) {
  for (const PublishedCount& p : kPublishedCounts)
    EXPECT_EQ(parameter_count(spec_of_file(root_ / p.model / "config.json")), p.parameters) << p.model;
}

struct Mixture {
  const char* config;
  int64_t parameters;  // as the model's page on the hub counts its tensors
};
// What these models' config.json say of their shape.
constexpr Mixture kMixtures[] = {
    {R"({"architectures": ["MixtralForCausalLM"], "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
         "max_position_embeddings": 32768, "num_attention_heads": 32, "num_experts_per_tok": 2,
         "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 8, "rms_norm_eps": 1e-05,
         "rope_theta": 1e6, "sliding_window": null, "tie_word_embeddings": false, "vocab_size": 32000})",
     46'702'792'704},  // Mixtral-8x7B
    {R"({"architectures": ["Qwen3MoeForCausalLM"], "attention_bias": false, "decoder_sparse_step": 1, "head_dim": 128,
         "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 12288, "max_position_embeddings": 40960,
         "max_window_layers": 94, "mlp_only_layers": [], "moe_intermediate_size": 1536, "norm_topk_prob": true,
         "num_attention_heads": 64, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 94,
         "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1e6,
         "sliding_window": null, "tie_word_embeddings": false, "use_sliding_window": false, "vocab_size": 151936})",
     235'093'634'560},  // Qwen3-235B-A22B
    {R"({"architectures": ["Qwen2MoeForCausalLM"], "decoder_sparse_step": 1, "hidden_act": "silu", "hidden_size": 2048,
         "intermediate_size": 5632, "max_position_embeddings": 8192, "max_window_layers": 21,
         "moe_intermediate_size": 1408, "norm_topk_prob": false, "num_attention_heads": 16, "num_experts": 60,
         "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 16, "rms_norm_eps": 1e-06,
         "rope_theta": 1e6, "shared_expert_intermediate_size": 5632, "sliding_window": 32768,
         "tie_word_embeddings": false, "use_sliding_window": false, "vocab_size": 151936})",
     14'315'784'192},  // Qwen1.5-MoE-A2.7B
    {R"({"architectures": ["OlmoeForCausalLM"], "attention_bias": false, "clip_qkv": null, "hidden_act": "silu",
         "hidden_size": 2048, "intermediate_size": 1024, "max_position_embeddings": 4096, "norm_topk_prob": false,
         "num_attention_heads": 16, "num_experts": 64, "num_experts_per_tok": 8, "num_hidden_layers": 16,
         "num_key_value_heads": 16, "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 10000.0,
         "tie_word_embeddings": false, "vocab_size": 50304})",
     6'919'161'856}};  // OLMoE-1B-7B

TEST(Mixtures, HaveThePublishedNumberOfParameters) {
  for (const Mixture& m : kMixtures) {
    const auto config = nlohmann::json::parse(m.config);
    const ModelSpec spec = find_architecture(architecture_of(config)).parse(config);
    EXPECT_EQ(parameter_count(spec), m.parameters) << spec.arch;
  }
}

struct RoundedCount {
  const char* config;
  double billions, unit;  // as the model's page says in words, and of what place
};
constexpr RoundedCount kRoundedCounts[] = {
    {R"({"architectures": ["GptOssForCausalLM"], "attention_bias": true, "head_dim": 64, "hidden_act": "silu",
         "hidden_size": 2880, "intermediate_size": 2880, "max_position_embeddings": 131072, "num_attention_heads": 64,
         "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 8, "num_local_experts": 32,
         "rms_norm_eps": 1e-05,
         "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096,
                          "rope_type": "yarn", "truncate": false},
         "rope_theta": 150000, "sliding_window": 128, "swiglu_limit": 7.0, "tie_word_embeddings": false,
         "vocab_size": 201088})",
     20.91, 0.01},  // gpt-oss-20b
    {R"({"architectures": ["GptOssForCausalLM"], "attention_bias": true, "head_dim": 64, "hidden_act": "silu",
         "hidden_size": 2880, "intermediate_size": 2880, "max_position_embeddings": 131072, "num_attention_heads": 64,
         "num_experts_per_tok": 4, "num_hidden_layers": 36, "num_key_value_heads": 8, "num_local_experts": 128,
         "rms_norm_eps": 1e-05,
         "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096,
                          "rope_type": "yarn", "truncate": false},
         "rope_theta": 150000, "sliding_window": 128, "swiglu_limit": 7.0, "tie_word_embeddings": false,
         "vocab_size": 201088})",
     116.83, 0.01},  // gpt-oss-120b
    {R"({"architectures": ["Qwen3NextForCausalLM"], "attention_bias": false, "decoder_sparse_step": 1,
         "full_attention_interval": 4, "head_dim": 256, "hidden_act": "silu", "hidden_size": 2048,
         "intermediate_size": 5120, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128,
         "linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_value_head_dim": 128,
         "max_position_embeddings": 262144, "mlp_only_layers": [], "moe_intermediate_size": 512,
         "norm_topk_prob": true, "num_attention_heads": 16, "num_experts": 512, "num_experts_per_tok": 10,
         "num_hidden_layers": 48, "num_key_value_heads": 2, "partial_rotary_factor": 0.25, "rms_norm_eps": 1e-06,
         "rope_scaling": null, "rope_theta": 10000000, "shared_expert_intermediate_size": 512,
         "tie_word_embeddings": false, "vocab_size": 151936})",
     80, 1},  // Qwen3-Next-80B-A3B, without its module for further tokens
    {R"({"architectures": ["Glm4MoeForCausalLM"], "attention_bias": true, "first_k_dense_replace": 1, "head_dim": 128,
         "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 10944, "max_position_embeddings": 131072,
         "moe_intermediate_size": 1408, "n_group": 1, "n_routed_experts": 128, "n_shared_experts": 1,
         "norm_topk_prob": true, "num_attention_heads": 96, "num_experts_per_tok": 8, "num_hidden_layers": 46,
         "num_key_value_heads": 8, "num_nextn_predict_layers": 1, "partial_rotary_factor": 0.5, "rms_norm_eps": 1e-05,
         "rope_scaling": null, "rope_theta": 1000000, "routed_scaling_factor": 1.0, "tie_word_embeddings": false,
         "topk_group": 1, "use_qk_norm": false, "vocab_size": 151552})",
     106, 2},  // GLM-4.5-Air
    {R"({"architectures": ["DeepseekV3ForCausalLM"], "attention_bias": false, "first_k_dense_replace": 3,
         "hidden_act": "silu", "hidden_size": 7168, "intermediate_size": 18432, "kv_lora_rank": 512,
         "max_position_embeddings": 163840, "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_group": 8,
         "n_routed_experts": 256, "n_shared_experts": 1, "norm_topk_prob": true, "num_attention_heads": 128,
         "num_experts_per_tok": 8, "num_hidden_layers": 61, "num_key_value_heads": 128, "num_nextn_predict_layers": 1,
         "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "rms_norm_eps": 1e-06,
         "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0,
                          "original_max_position_embeddings": 4096, "type": "yarn"},
         "rope_theta": 10000, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "tie_word_embeddings": false,
         "topk_group": 4, "topk_method": "noaux_tc", "v_head_dim": 128, "vocab_size": 129280})",
     671, 1},  // DeepSeek-V3, without its module for a further token
    {R"({"architectures": ["DeepseekV2ForCausalLM"], "attention_bias": false, "first_k_dense_replace": 1,
         "hidden_act": "silu", "hidden_size": 5120, "intermediate_size": 12288, "kv_lora_rank": 512,
         "max_position_embeddings": 163840, "moe_intermediate_size": 1536, "moe_layer_freq": 1, "n_group": 8,
         "n_routed_experts": 160, "n_shared_experts": 2, "norm_topk_prob": false, "num_attention_heads": 128,
         "num_experts_per_tok": 6, "num_hidden_layers": 60, "num_key_value_heads": 128, "q_lora_rank": 1536,
         "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "rms_norm_eps": 1e-06,
         "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 0.707, "mscale_all_dim": 0.707,
                          "original_max_position_embeddings": 4096, "type": "yarn"},
         "rope_theta": 10000, "routed_scaling_factor": 16.0, "scoring_func": "softmax", "tie_word_embeddings": false,
         "topk_group": 3, "topk_method": "group_limited_greedy", "v_head_dim": 128, "vocab_size": 102400})",
     236, 1},  // DeepSeek-V2
    {R"({"architectures": ["DeepseekV2ForCausalLM"], "attention_bias": false, "first_k_dense_replace": 1,
         "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 10944, "kv_lora_rank": 512,
         "max_position_embeddings": 163840, "moe_intermediate_size": 1408, "moe_layer_freq": 1, "n_group": 1,
         "n_routed_experts": 64, "n_shared_experts": 2, "norm_topk_prob": false, "num_attention_heads": 16,
         "num_experts_per_tok": 6, "num_hidden_layers": 27, "num_key_value_heads": 16, "q_lora_rank": null,
         "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "rms_norm_eps": 1e-06,
         "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 0.707, "mscale_all_dim": 0.707,
                          "original_max_position_embeddings": 4096, "type": "yarn"},
         "rope_theta": 10000, "routed_scaling_factor": 1.0, "scoring_func": "softmax", "tie_word_embeddings": false,
         "topk_group": 1, "topk_method": "greedy", "v_head_dim": 128, "vocab_size": 102400})",
     15.7, 0.1},  // DeepSeek-V2-Lite
    {R"({"architectures": ["GraniteMoeForCausalLM"], "attention_bias": false, "attention_multiplier": 0.015625,
         "embedding_multiplier": 12.0, "hidden_act": "silu", "hidden_size": 1024, "intermediate_size": 512,
         "logits_scaling": 6.0, "max_position_embeddings": 131072, "num_attention_heads": 16, "num_experts_per_tok": 8,
         "num_hidden_layers": 24, "num_key_value_heads": 8, "num_local_experts": 32, "residual_multiplier": 0.22,
         "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1500000.0, "tie_word_embeddings": true,
         "vocab_size": 49152})",
     1.3, 0.1},  // Granite-3.1-1B-A400M
    {R"({"architectures": ["GraniteMoeForCausalLM"], "attention_bias": false, "attention_multiplier": 0.015625,
         "embedding_multiplier": 12.0, "hidden_act": "silu", "hidden_size": 1536, "intermediate_size": 512,
         "logits_scaling": 6.0, "max_position_embeddings": 4096, "num_attention_heads": 24, "num_experts_per_tok": 8,
         "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 40, "residual_multiplier": 0.22,
         "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 10000, "tie_word_embeddings": true,
         "vocab_size": 49155})",
     3.3, 0.1}};  // Granite-3.0-3B-A800M

TEST(Mixtures, HaveTheNumberOfParametersThatTheirPagesSay) {
  for (const RoundedCount& m : kRoundedCounts) {
    const auto config = nlohmann::json::parse(m.config);
    const ModelSpec spec = find_architecture(architecture_of(config)).parse(config);
    EXPECT_NEAR(double(parameter_count(spec)) / 1e9, m.billions, m.unit / 2) << spec.arch;
  }
}

nlohmann::json deepseek3() {
  for (const RoundedCount& m : kRoundedCounts)
    if (const auto config = nlohmann::json::parse(m.config); architecture_of(config) == "DeepseekV3ForCausalLM")
      return config;
  return {};
}

TEST(Mixtures, DescribeLatentAttentionAndGroups) {
  const ModelSpec m = find_architecture("DeepseekV3ForCausalLM").parse(deepseek3());
  const BlockSpec &dense = m.blocks[2], &b = m.blocks[3];
  EXPECT_FALSE(dense.experts);
  EXPECT_EQ(dense.mlp.hidden, 18432);
  EXPECT_EQ(b.shape({Role::q_a}), (std::pair<int64_t, int64_t>(1536, 7168)));
  EXPECT_EQ(b.shape({Role::q}), (std::pair<int64_t, int64_t>(128 * 192, 1536)));
  EXPECT_EQ(b.shape({Role::k}), (std::pair<int64_t, int64_t>(128 * 128, 512)));
  EXPECT_EQ(b.shape({Role::o}), (std::pair<int64_t, int64_t>(7168, 128 * 128)));
  EXPECT_EQ(b.experts->groups, 8);
  EXPECT_EQ(b.experts->active_groups, 4);
  EXPECT_FLOAT_EQ(b.experts->scale, 2.5f);
  const double mscale = 0.1 * std::log(40) + 1;
  EXPECT_FLOAT_EQ(b.attention.score_scale(), float(mscale * mscale / std::sqrt(192)));
  ASSERT_EQ(m.unused.size(), 1u);
  EXPECT_EQ(m.unused[0].begin, "model.layers.61.");
}

TEST(Mixtures, RefuseGroupsAndScalesThatTheyDoNotHave) {
  const std::pair<const char*, nlohmann::json> wrong[] = {{"n_group", 7},
                                                          {"topk_group", 9},
                                                          {"num_experts_per_tok", 129},
                                                          {"scoring_func", "softmax"},
                                                          {"topk_method", "greedy"},
                                                          {"moe_layer_freq", 2},
                                                          {"num_key_value_heads", 8},
                                                          {"attention_bias", true}};
  for (const auto& [key, value] : wrong) {
    auto config = deepseek3();
    config[key] = value;
    EXPECT_THROW(find_architecture("DeepseekV3ForCausalLM").parse(config), Error) << key;
  }
  auto config = deepseek3();
  config["rope_scaling"]["mscale"] = 0.5;
  EXPECT_THROW(find_architecture("DeepseekV3ForCausalLM").parse(config), Error);
}

nlohmann::json qwen2_vl() {
  return nlohmann::json::parse(R"({"architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "qwen2_vl",
    "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "vocab_size": 8, "tie_word_embeddings": true,
    "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]}})");
}

TEST(ModelsThatSee, HaveTheirLanguagesSpec) {
  auto seeing = qwen2_vl(), alone = qwen2_vl();
  alone["architectures"] = {"Qwen2ForCausalLM"};
  alone["rope_scaling"] = nullptr;
  const ModelSpec a = find_architecture("Qwen2VLForConditionalGeneration").parse(seeing),
                  b = find_architecture("Qwen2ForCausalLM").parse(alone);
  EXPECT_EQ(a.blocks, b.blocks);
  EXPECT_TRUE(a.tied_embeddings);
  EXPECT_EQ(a.language_arch, "Qwen2ForCausalLM");
}

TEST(ModelsThatSee, OfALanguageThatIsNotKnownAreRefused) {
  auto config = qwen2_vl();
  config["text_config"] = {{"model_type", "bark"}};
  EXPECT_THROW(find_architecture("Qwen2VLForConditionalGeneration").parse(config), Error);
  config = qwen2_vl();
  config["rope_scaling"] = {{"type", "other"}, {"mrope_section", {4, 6, 6}}};
  EXPECT_THROW(find_architecture("Qwen2VLForConditionalGeneration").parse(config), Error);
}

TEST(Mixtures, OfMoreActiveExpertsThanThereAreAreRefused) {
  auto config = nlohmann::json::parse(kMixtures[0].config);
  config["num_experts_per_tok"] = 9;
  EXPECT_THROW(find_architecture("MixtralForCausalLM").parse(config), Error);
}

}  // namespace
}  // namespace awq
