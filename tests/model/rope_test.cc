// Rules for positions: angles against transformers (tools/make_rope_vectors.py), how far each rule reaches, and what is
// refused.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "awq/error.h"
#include "model/spec.h"

namespace awq {
namespace {

using Json = nlohmann::json;

Json vectors() { return Json::parse(std::ifstream(AWQ_TEST_DIR "/golden/rope.json")); }

/// A Llama's config.json of 4,096 positions.
Json config_with(const Json& scaling) {
  Json c = vectors().at(0).at("config");
  c["rope_scaling"] = scaling;
  return c;
}

ModelSpec spec_of(const Json& config) {
  return find_architecture(config.at("architectures").at(0).get<std::string>()).parse(config);
}

std::string error_of(const Json& config) {
  try {
    spec_of(config);
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

// Ours and the reference's are double, rounded once: 2^-24. Doubles of another libm differ in their last places.
TEST(Rope, AnglesAndAttentionFactorsAreTheReferences) {
  const Json cases = vectors();
  EXPECT_EQ(cases.size(), 19u);
  for (const Json& c : cases) {
    SCOPED_TRACE(c.at("name"));
    const AttentionSpec a = spec_of(c.at("config")).blocks.at(0).attention;
    const std::vector<float> ours = a.rope.frequencies(c.value("length", 0));
    ASSERT_EQ(ours.size(), c.at("frequencies").size());
    for (size_t i = 0; i < ours.size(); ++i) {
      const double want = c.at("frequencies")[i];
      EXPECT_LE(std::abs(double(ours[i]) - want), 0x1.001p-24 * want) << i;
    }
    const double factor = c.at("attention_factor");
    EXPECT_NEAR(double(a.rope.attention_factor), factor, 0x1p-22);  // four operations in float
    EXPECT_NEAR(double(a.score_scale()), factor * factor / std::sqrt(double(a.head_dim)), 0x1p-20 * factor * factor);
  }
}

struct Reach {
  Json scaling;
  int context;
  const char* rule;
};

TEST(Rope, ARuleSaysHowFarItReaches) {
  const Json yarn = {{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 8192}},
             llama3 = {{"rope_type", "llama3"},
                       {"factor", 8.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 1024}};
  for (const Reach& r :
       {Reach{nullptr, 4096, "no rope scaling"}, Reach{{{"type", "default"}}, 4096, "no rope scaling"},
        Reach{{{"type", "linear"}, {"factor", 2.5}}, 10240, "linear rope scaling by 2.5"},
        Reach{{{"type", "linear"}, {"factor", 1e30}}, INT32_MAX, "linear rope scaling by 1e+30"},
        Reach{{{"type", "dynamic"}, {"factor", 4.0}}, 16384, "dynamic rope scaling by 4"},
        Reach{llama3, 4096, "llama3 rope scaling by 8"}, Reach{yarn, 32768, "yarn rope scaling by 4 of 8192"}}) {
    const ModelSpec m = spec_of(config_with(r.scaling));
    EXPECT_EQ(m.max_context, r.context);
    EXPECT_EQ(m.context_rule, r.rule);
  }
}

// Gemma 3's max_position_embeddings is what its scaling reaches; blocks with a window have a rope without scaling.
TEST(Rope, GemmasContextIsScaledAlready) {
  const ModelSpec m = spec_of(Json::parse(std::ifstream(AWQ_TEST_DIR "/golden/gemma3/config.json")));
  EXPECT_EQ(m.max_context, 256);
  EXPECT_EQ(m.context_rule, "linear rope scaling by 8");
  EXPECT_EQ(m.blocks.at(0).attention.rope.scaling, RopeScaling::none);
  EXPECT_EQ(m.blocks.at(2).attention.rope.scaling, RopeScaling::linear);
}

TEST(Rope, RefusesRulesItDoesNotHave) {
  const std::string known = "default, linear, dynamic, llama3, yarn or longrope (what this version implements)";
  for (const char* type : {"proportional", "ntk"})
    EXPECT_EQ(error_of(config_with({{"type", type}, {"factor", 4.0}})),
              "[config] config.json: \"rope_type\" should be " + known + ", but is \"" + type +
                  "\"; is the file complete and of this model?");
}

TEST(Rope, RefusesWhatItsRulesDoNotCover) {
  const auto says = [](const Json& config, const std::string& part) {
    EXPECT_NE(error_of(config).find(part), std::string::npos) << error_of(config);
  };
  const Json yarn = {{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 8192}};
  const auto changed = [&](const char* key, const Json& value) {
    Json y = yarn;
    y[key] = value;
    return config_with(y);
  };
  says(config_with({{"type", "linear"}}), "\"factor\" is missing");
  Json longrope = {{"type", "longrope"},
                   {"short_factor", std::vector(64, 1.0)},
                   {"long_factor", std::vector(64, 2.0)},
                   {"original_max_position_embeddings", 1024}};
  EXPECT_EQ(error_of(config_with(longrope)), "no error");
  longrope["long_factor"] = std::vector(63, 2.0);
  says(config_with(longrope), "\"long_factor\" should be 64 numbers");
  longrope["long_factor"] = std::vector(64, 0.0);
  says(config_with(longrope), "\"long_factor\" should be numbers above 0");
  says(config_with({{"type", "dynamic"}, {"factor", 0.5}}), "\"factor\" should be at least 1");
  says(changed("original_max_position_embeddings", nullptr), "\"original_max_position_embeddings\" is missing");
  says(changed("beta_fast", 0.5), "\"beta_fast\" should be at least beta_slow");
  says(changed("beta_slow", -1), "\"beta_fast\" should be at least beta_slow");
  says(changed("attention_factor", 0), "\"attention_factor\" should be above 0");
  Json config = config_with(yarn);
  config["original_max_position_embeddings"] = 8192;
  EXPECT_EQ(error_of(config), "no error");
  config["original_max_position_embeddings"] = 4096;
  says(config, "\"original_max_position_embeddings\" should be 8192");
}

TEST(Rope, RefusesTwoSpellingsAtOnceAndRulesOfOtherLayers) {
  Json config = config_with(nullptr);
  config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 10000.0}};
  EXPECT_EQ(error_of(config), "no error");
  config["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};
  EXPECT_NE(error_of(config).find("\"rope_scaling\" should be absent"), std::string::npos);
  config = config_with(nullptr);
  config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 10000.0}, {"partial_rotary_factor", 0.5}};
  EXPECT_NE(error_of(config).find("\"partial_rotary_factor\" should be 1.0"), std::string::npos);
  config["rope_parameters"] = {{"full_attention", {{"rope_type", "default"}}}};
  EXPECT_NE(error_of(config).find("\"rope_parameters\" should be one rule for all layers"), std::string::npos);
}

}  // namespace
}  // namespace awq
