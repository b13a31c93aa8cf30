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

}  // namespace
}  // namespace awq
