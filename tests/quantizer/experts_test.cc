// Calibration and search of a mixture of experts.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "float_set.h"
#include "quantizer/method.h"

namespace awq {
namespace {

constexpr int kExpertTokens = 96, kExpertLength = 24, kExperts = 8, kActive = 2;

class Experts : public testing::Test {
 protected:
  Experts() : host_{pool_, float_set()}, dev_(cpu_backend(pool_, host_.kernels)) {
    const ModelSpec model = find_architecture("Qwen2MoeForCausalLM").parse(nlohmann::json::parse(R"({
      "architectures": ["Qwen2MoeForCausalLM"], "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 96,
      "moe_intermediate_size": 32, "shared_expert_intermediate_size": 96, "num_experts": 8, "num_experts_per_tok": 2,
      "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32, "rms_norm_eps": 1e-5,
      "rope_theta": 10000.0, "vocab_size": 32, "max_position_embeddings": 64})"));
    std::mt19937 random(3);
    w_.spec = model.blocks[0];
    for (Param p : w_.spec.params()) {
      const auto [rows, cols] = w_.spec.shape(p);
      w_.at[p] = filled(cols ? Shape{rows, cols} : Shape{rows}, random, cols ? 0.15f : 1.f);
    }
    for (Param p : {Param{Role::q}, {Role::k}, {Role::v}}) w_.bias[p] = filled({w_.spec.shape(p).first}, random, 0.1f);
    // No token prefers the last expert.
    for (float& v : w_.tensor({Role::router}).rows(kExperts - 1, kExperts).as<float>()) v = 0;
    hidden_ = filled({kExpertTokens, 64}, random, 1);
    for (int i = 0; i < kExpertTokens; ++i) counted_.push_back(i % 3 != 1);
  }
  static Tensor filled(Shape shape, std::mt19937& random, float size) {
    std::normal_distribution<float> normal;
    Tensor t = Tensor::empty(shape, DType::f32);
    for (float& v : t.as<float>()) v = size * normal(random);
    return t;
  }
  BlockCalibration run(const CalibrationOptions& options) {
    Tensor hidden = hidden_.clone();
    return calibrate(*dev_, host_, upload(*dev_, w_), 0, in_memory(hidden, kExpertLength), options, costs_);
  }
  Solution solved(const BlockCalibration& c, BlockWeights& w) {
    return find_method("awq").make()->solve(w, upload(*dev_, w_), c, {spec_, *dev_, host_, costs_, {}});
  }
  /// Inputs of the MLP, all tokens.
  Tensor mlp_input() {
    Tensor seen;
    Tensor x = hidden_.clone();
    run_sequences(*dev_, upload(*dev_, w_), kExpertLength, x, [&](Site s, const Tensor& t, auto) {
      if (s == Site{Role::gate}) seen = t.clone();
    });
    return seen;
  }
  static int64_t routed_tokens(const BlockCalibration& c) {
    int64_t sum = 0;
    for (int e = 0; e < kExperts; ++e) {
      const SiteStatistics& s = c.sites.at({Role::down, e});
      sum += s.tokens - s.forced;
    }
    return sum;
  }

  ThreadPool pool_{2};
  Host host_;
  BlockCosts costs_;
  std::unique_ptr<Backend> dev_;
  BlockWeights w_;
  Tensor hidden_;
  std::vector<uint8_t> counted_;
  const QuantSpec spec_{.bits = 4, .group_size = 32};
};

TEST_F(Experts, EachSeesTheTokensThatAreSentToIt) {
  const BlockCalibration c = run({.expert_tokens = 1});
  EXPECT_EQ(routed_tokens(c), kActive * kExpertTokens);
  EXPECT_EQ(c.sites.at({Role::gate}).tokens, kExpertTokens);
  EXPECT_EQ(c.sites.at({Role::down, kSharedExpert}).tokens, kExpertTokens);
}

TEST_F(Experts, TokensThatDoNotCountAreInNoStatistic) {
  const BlockCalibration c = run({.expert_tokens = 1, .counted = counted_});
  EXPECT_EQ(routed_tokens(c), kActive * std::ranges::count(counted_, 1));
  EXPECT_EQ(c.sites.at({Role::down, kSharedExpert}).tokens, std::ranges::count(counted_, 1));
}

// Its inputs' squares over all tokens, computed apart.
TEST_F(Experts, WithTooFewTokensAreCalibratedWithAll) {
  const BlockCalibration few = run({.expert_tokens = 1}), all = run({.expert_tokens = kExpertTokens});
  const Tensor x = mlp_input();
  for (int e = 0; e < kExperts; ++e) {
    const SiteStatistics &own = few.sites.at({Role::down, e}), &s = all.sites.at({Role::down, e});
    const bool none = own.tokens == own.forced;
    EXPECT_EQ(own.forced, none ? kExpertTokens : 0) << e;
    EXPECT_EQ(s.forced, kExpertTokens);
    EXPECT_EQ(s.tokens - s.forced, own.tokens - own.forced);
    Tensor y = dev_->empty(x.shape());
    double squares = none ? 0 : double(own.gram.at(5, 5));
    expert_forward(*dev_, upload(*dev_, w_), e, x, y, kExpertTokens, [&](Site, const Tensor& h, auto) {
      for (int64_t t = 0; t < kExpertTokens; ++t) squares += std::pow(double(h.as<float>()[size_t(t * 32 + 5)]), 2);
    });
    EXPECT_NEAR(double(s.gram.at(5, 5)) / squares, 1, 2 * kExpertTokens * 0x1p-24) << e;
  }
  EXPECT_EQ(all.sites.at({Role::down, kSharedExpert}).forced, 0);
}

TEST_F(Experts, AreJudgedByAllRowsThatReadTheNorm) {
  const BlockCalibration c = run({});
  BlockWeights w = w_;
  for (auto& [p, t] : w.at) t = std::get<Tensor>(t).clone();
  const Solution s = solved(c, w);
  double want = 0;
  int layers = 0;
  for (Param p : w_.spec.params()) {
    if (p.role != Role::gate && p.role != Role::up) continue;
    want += QuadraticForm(host_, c.sites.at({Role::gate}).gram)
                .loss(w_.tensor(p), dequantize(quantize(w_.tensor(p), spec_)));
    ++layers;
  }
  EXPECT_EQ(layers, 2 * (kExperts + 1));
  const auto group = std::ranges::find(s.groups, std::optional(Param{Role::mlp_norm}),
                                       [](const GroupResult& g) { return g.group.producer; });
  ASSERT_NE(group, s.groups.end());
  EXPECT_NEAR(group->identity_loss / want, 1, 1e-6);
  EXPECT_LE(group->loss, group->identity_loss);
  EXPECT_FALSE(s.matrices.contains({Role::router}));
  EXPECT_FALSE(s.matrices.contains({Role::shared_router}));
}

}  // namespace
}  // namespace awq
