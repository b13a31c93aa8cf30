// Real config.json files of the shared test data: those of known families become specs, whose sizes are the published
// ones; the others are refused by name.
#include <gtest/gtest.h>

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
  EXPECT_GE(parsed, 34);
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
                                               {"Baichuan2/Baichuan2-7B", 7'505'973'248}};

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

TEST(Mixtures, OfMoreActiveExpertsThanThereAreAreRefused) {
  auto config = nlohmann::json::parse(kMixtures[0].config);
  config["num_experts_per_tok"] = 9;
  EXPECT_THROW(find_architecture("MixtralForCausalLM").parse(config), Error);
}

}  // namespace
}  // namespace awq
