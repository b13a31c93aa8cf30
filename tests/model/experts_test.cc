#include "model/experts.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "kernels/registry.h"
#include "model/block.h"

namespace awq {
namespace {

const std::vector<float> kLogits = {0.5f, -1, 2, 0,  //
                                    3,    3,  3, -1};

std::vector<double> softmax(std::span<const float> x) {
  std::vector<double> p;
  double sum = 0;
  for (float v : x) sum += std::exp(double(v));
  for (float v : x) p.push_back(std::exp(double(v)) / sum);
  return p;
}

TEST(Routes, AreTheLargestWithTheirSoftmaxOverAll) {
  const std::vector<Route> routes =
      routes_of({.count = 4, .active = 2, .normalized = false}, Tensor::of<float>(kLogits, {2, 4}));
  const auto first = softmax(std::span(kLogits).first(4)), second = softmax(std::span(kLogits).last(4));
  EXPECT_EQ(routes[0].rows, (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(routes[1].rows, (std::vector<int32_t>{1}));  // of three equal ones the first two
  EXPECT_EQ(routes[2].rows, (std::vector<int32_t>{0}));
  EXPECT_TRUE(routes[3].rows.empty());
  EXPECT_FLOAT_EQ(routes[0].weights[0], float(first[0]));
  EXPECT_FLOAT_EQ(routes[2].weights[0], float(first[2]));
  EXPECT_FLOAT_EQ(routes[1].weights[0], float(second[1]));
}

// What Mixtral does and what takes the softmax of the chosen are the same function.
TEST(Routes, NormalizedAreTheSoftmaxOfTheChosen) {
  const std::vector<Route> routes = routes_of({.count = 4, .active = 2}, Tensor::of<float>(kLogits, {2, 4}));
  const auto chosen = softmax(std::vector<float>{0.5f, 2});
  EXPECT_FLOAT_EQ(routes[0].weights[0], float(chosen[0]));
  EXPECT_FLOAT_EQ(routes[2].weights[0], float(chosen[1]));
  EXPECT_FLOAT_EQ(routes[1].weights[0], 0.5f);
}

/// The experts of the only token, and their weights.
std::map<size_t, float> routed(const ExpertsSpec& spec, const std::vector<float>& logits,
                               const std::vector<float>& correction = {}) {
  const auto routes = routes_of(spec, Tensor::of<float>(logits, {1, int64_t(logits.size())}), correction);
  std::map<size_t, float> weights;
  for (size_t e = 0; e < routes.size(); ++e)
    if (!routes[e].rows.empty()) weights[e] = routes[e].weights[0];
  return weights;
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// The correction chooses and does not weigh: expert 3 is in, with its own small score.
TEST(Routes, OfSigmoidsAreChosenWithTheCorrectionAndWeightedWithoutIt) {
  const ExpertsSpec spec{.count = 4, .active = 2, .scores = Scores::sigmoid, .correction = true, .scale = 2.5f};
  const std::map<size_t, float> w = routed(spec, {2, 1, 0, -3}, {0, 0, 0, 5});
  const double a = sigmoid(2), b = sigmoid(-3);
  ASSERT_EQ(w.size(), 2u);
  EXPECT_FLOAT_EQ(w.at(0), float(2.5 * a / (a + b)));
  EXPECT_FLOAT_EQ(w.at(3), float(2.5 * b / (a + b)));
}

TEST(Routes, NotNormalizedSigmoidsAreThemselves) {
  const std::map<size_t, float> w =
      routed({.count = 3, .active = 1, .scores = Scores::sigmoid, .normalized = false, .scale = 3}, {1, 0, 0});
  EXPECT_FLOAT_EQ(w.at(0), float(3 * sigmoid(1)));
}

// Group 0 has the best expert, group 1 the best two: which is chosen depends on how many count.
TEST(Routes, StayInTheBestGroups) {
  const std::vector<float> logits = {4, -4, 3, 2, -9, -9};
  ExpertsSpec spec{.count = 6, .active = 2, .groups = 3, .active_groups = 1};
  for (const auto& [best, first, second] : {std::tuple(1, 0u, 1u), {2, 2u, 3u}}) {
    spec.group_best = best;
    const std::map<size_t, float> w = routed(spec, logits);
    EXPECT_EQ(w.size(), 2u);
    EXPECT_TRUE(w.contains(first) && w.contains(second)) << best;
  }
  spec.active_groups = 2, spec.group_best = 1;
  EXPECT_TRUE(routed(spec, logits).contains(2));
}

// Of all, though only some groups' experts were candidates.
TEST(Routes, OfGroupsHaveTheSoftmaxOverAll) {
  const std::vector<float> logits = {1, 0, 0.5f, 0.25f};
  const ExpertsSpec spec{.count = 4, .active = 1, .groups = 2, .active_groups = 1, .normalized = false, .scale = 16.f};
  EXPECT_FLOAT_EQ(routed(spec, logits).at(0), float(16 * softmax(logits)[0]));
}

TEST(Routes, OfLargeLogitsDoNotOverflow) {
  const std::vector<float> large = {1e4f, 1e4f, -1e4f};
  const std::vector<Route> routes = routes_of({.count = 3, .active = 2}, Tensor::of<float>(large, {1, 3}));
  EXPECT_FLOAT_EQ(routes[0].weights[0], 0.5f);
}

// A damaged model: every token still passes as many experts as there should be, each once.
TEST(Routes, OfNoNumbersStayWithinBounds) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> logits = {nan, 1, nan, 2};
  const std::vector<Route> routes = routes_of({.count = 4, .active = 3}, Tensor::of<float>(logits, {1, 4}));
  size_t passed = 0;
  for (const Route& r : routes) passed += r.rows.size();
  EXPECT_EQ(passed, 3u);
}

TEST(Routes, TheSharedExpertGetsAllTokens) {
  const std::vector<float> gate = {0, 2};
  const Route gated = shared_route(Tensor::of<float>(gate, {2, 1}), 2), plain = shared_route({}, 2);
  EXPECT_EQ(gated.rows, (std::vector<int32_t>{0, 1}));
  EXPECT_FLOAT_EQ(gated.weights[0], 0.5f);
  EXPECT_FLOAT_EQ(gated.weights[1], float(1 / (1 + std::exp(-2.0))));
  EXPECT_EQ(plain.weights, (std::vector<float>{1, 1}));
}

class Mixture : public testing::Test {
 protected:
  Mixture() {
    std::mt19937 rng(3);
    std::normal_distribution<float> normal;
    spec_.dim = 32;
    spec_.mlp.hidden = 64;
    spec_.attention = {.heads = 1, .kv_heads = 1, .head_dim = 32, .window = {}, .rope = {}};
    spec_.experts = {.count = 8, .active = 2, .shared_hidden = 32, .shared_gate = true};
    weights_.spec = spec_;
    for (Param p : spec_.params()) {
      const auto [rows, cols] = spec_.shape(p);
      Tensor t = Tensor::empty(cols ? Shape{rows, cols} : Shape{rows}, DType::f32);
      for (float& v : t.as<float>()) v = normal(rng) / 6;
      weights_.at[p] = cols ? t.to(DType::bf16) : t;  // of which many tokens are multiplied otherwise than few
    }
    x_ = Tensor::empty({40, 32}, DType::f32);
    for (float& v : x_.as<float>()) v = normal(rng);
  }
  Tensor output(int threads, const Tensor& x, const Tap& tap = {}) {
    ThreadPool pool(threads);
    const auto dev = cpu_backend(pool, kernels::select());
    Tensor y = dev->empty(x.shape());
    std::ranges::fill(y.as<float>(), std::numeric_limits<float>::quiet_NaN());  // what was there does not matter
    mlp_forward(*dev, upload(*dev, weights_), x, y, tap);
    return y;
  }
  BlockSpec spec_;
  BlockWeights weights_;
  Tensor x_;
};

TEST_F(Mixture, IsTheSameForAnyNumberOfThreads) {
  const Tensor one = output(1, x_);
  for (int threads : {2, 5}) EXPECT_TRUE(std::ranges::equal(output(threads, x_).as<float>(), one.as<float>()));
}

// Whoever else is in the batch, and so whichever experts get how many tokens.
TEST_F(Mixture, TokensDoNotMix) {
  const Tensor all = output(2, x_);
  for (int64_t n : {9, 17})
    EXPECT_TRUE(std::ranges::equal(output(2, x_.rows(3, 3 + n)).as<float>(), all.rows(3, 3 + n).as<float>())) << n;
}

TEST_F(Mixture, ATokenPassesItsActiveExpertsOnly) {
  for (int64_t t = 0; t < 5; ++t) {
    std::set<int> passed;
    output(1, x_.rows(t, t + 1), [&](Site s, const Tensor& h, std::span<const int32_t> rows) {
      if (s.role != Role::down) return;
      EXPECT_TRUE(passed.insert(s.expert).second);
      EXPECT_EQ(h.shape(), (Shape{1, spec_.mlp_hidden(s.expert)}));
      EXPECT_EQ(rows.size(), 1u);
    });
    EXPECT_EQ(passed.size(), 3u);
    EXPECT_TRUE(passed.contains(kSharedExpert));
  }
}

TEST_F(Mixture, EveryTokenPassesAsManyExperts) {
  std::vector<int> passed(40);
  output(2, x_, [&](Site s, const Tensor&, std::span<const int32_t> rows) {
    if (s.role == Role::down)
      for (int32_t t : rows) ++passed[size_t(t)];
  });
  EXPECT_EQ(passed, std::vector<int>(40, 3));
}

}  // namespace
}  // namespace awq
