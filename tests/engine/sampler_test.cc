#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>

#include "awq/error.h"

namespace awq {
namespace {

std::map<int32_t, int> counts(const SamplerOptions& o, const std::vector<float>& logits, int n,
                              std::vector<int32_t> history = {}) {
  Sampler s(o);
  std::map<int32_t, int> c;
  for (int i = 0; i < n; ++i) {
    std::vector<float> l = logits;
    ++c[s.sample(l, history, 0)];
  }
  return c;
}

const std::vector<float> kLogits = {std::log(0.5f), std::log(0.25f), std::log(0.15f), std::log(0.1f)};

TEST(Sampler, GreedyTakesTheLargestAndTheFirstOfEquals) { EXPECT_EQ(counts({}, {1, 3, 3, 2}, 1).begin()->first, 1); }

// Counts of n draws have a standard deviation below sqrt(n) / 2; four of them leave one failure in 10^4 seeds.
TEST(Sampler, FollowsTheDistribution) {
  const int n = 40000;
  const auto c = counts({.temperature = 1, .seed = 3}, kLogits, n);
  const double p[] = {0.5, 0.25, 0.15, 0.1};
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(c.at(i), n * p[i], 4 * std::sqrt(n) / 2);
}

// Blocks of the vocabulary are added up before the token is looked for in one; the last tokens cannot be.
TEST(Sampler, FollowsTheDistributionOfALargeVocabulary) {
  const int n = 20000;
  std::vector<float> logits(5000, -INFINITY);
  const std::map<int32_t, double> p = {{0, 0.3}, {511, 0.1}, {512, 0.1}, {1500, 0.2}, {4607, 0.2}, {4990, 0.1}};
  for (const auto& [token, share] : p) logits[size_t(token)] = float(std::log(share)) + 7;
  for (const double top_p : {1., 0.999}) {  // without and with a list of candidates
    const auto c = counts({.temperature = 1, .top_p = top_p, .seed = 9}, logits, n);
    EXPECT_EQ(c.size(), p.size());
    for (const auto& [token, share] : p) EXPECT_NEAR(c.at(token), n * share, 4 * std::sqrt(n) / 2) << token;
  }
}

TEST(Sampler, TemperatureSharpens) {
  const int n = 40000;  // at temperature 1/2 the probabilities are squares: 0.25 : 0.0625 : 0.0225 : 0.01
  EXPECT_NEAR(counts({.temperature = 0.5, .seed = 1}, kLogits, n).at(0), n * 0.25 / 0.345, 4 * std::sqrt(n) / 2);
}

// 1 / 1e-300 is no float: the likeliest token must stay all the same.
TEST(Sampler, ATinyTemperatureIsGreedy) {
  EXPECT_EQ(counts({.temperature = 1e-300}, kLogits, 5).begin()->first, 0);
  EXPECT_EQ(counts({.temperature = 1e-300, .top_p = 0.5, .min_p = 1}, kLogits, 5).at(0), 5);
}

TEST(Sampler, NothingLeftIsAnError) {
  EXPECT_THROW(counts({.temperature = 1}, {NAN, NAN}, 1), Error);
  EXPECT_THROW(counts({.temperature = 1, .min_p = 1.5}, kLogits, 1), Error);
}

TEST(Sampler, Filters) {
  EXPECT_EQ(counts({.temperature = 1, .top_k = 2}, kLogits, 2000).size(), 2u);
  EXPECT_EQ(counts({.temperature = 1, .top_p = 0.74}, kLogits, 2000).size(), 2u);  // 0.5 + 0.25 reaches it
  EXPECT_EQ(counts({.temperature = 1, .top_p = 0.76}, kLogits, 2000).size(), 3u);
  EXPECT_EQ(counts({.temperature = 1, .top_p = 0.01}, kLogits, 2000).size(), 1u);  // never none
  EXPECT_EQ(counts({.temperature = 1, .min_p = 0.29}, kLogits, 2000).size(), 3u);  // 0.15 / 0.5 = 0.3 stays
}

TEST(Sampler, PenaltyHitsWhatWasSeen) {
  EXPECT_EQ(counts({.repetition_penalty = 2}, {4, 3, -1}, 1, {0}).begin()->first, 1);
  EXPECT_EQ(counts({.repetition_penalty = 2}, {-1, -1.5f}, 1, {0}).begin()->first, 1);  // negative logits get more so
}

TEST(Sampler, PresenceAndFrequencyCountTheAnswerAlone) {
  const auto next = [](const SamplerOptions& o, std::vector<float> logits) {
    return Sampler(o).sample(logits, std::vector<int32_t>{1, 0, 0, 2}, 1);  // 1 is of the prompt
  };
  EXPECT_EQ(next({.presence_penalty = 1}, {2, 1.5f, 1.9f}), 1);
  EXPECT_EQ(next({.presence_penalty = 1}, {2.6f, 1.5f, 1.9f}), 0);
  EXPECT_EQ(next({.frequency_penalty = 1}, {3.4f, 1.5f, 1.9f}), 1);  // 0 came twice
  EXPECT_EQ(next({.frequency_penalty = -1}, {0, 1.5f, 0.6f}), 0);
  EXPECT_EQ(next({.bias = {{2, 0.2f}, {1, -100}}}, {2, 9, 1.9f}), 2);
}

// Entropy 1.208; surprises 0.693, 1.386, 1.897, 2.303, of which the second is nearest, then the first, the third.
TEST(Sampler, TypicalTokensAreThoseWithTheMeanSurprise) {
  const auto seen = [](double p) {
    const auto c = counts({.temperature = 1, .typical_p = p}, kLogits, 2000);
    std::vector<int32_t> tokens;
    for (const auto& [token, n] : c) tokens.push_back(token);
    return tokens;
  };
  EXPECT_EQ(seen(0.2), std::vector<int32_t>{1});
  EXPECT_EQ(seen(0.7), (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(seen(0.8), (std::vector<int32_t>{0, 1, 2}));
}

// With a cut by top-p both have their candidates in falling order, so that the same draw is the same token.
TEST(Sampler, TheLargestLogitsDecideAsAllDo) {
  std::vector<float> logits, largest;
  for (int i = 0; i < 300; ++i) logits.push_back(float((i * 37 + 11) % 300) / 30);
  std::vector<int32_t> order(300);
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, std::greater{}, [&](int32_t i) { return logits[size_t(i)]; });
  order.resize(20);
  for (int32_t i : order) largest.push_back(logits[size_t(i)]);
  for (const SamplerOptions& o :
       {SamplerOptions{}, SamplerOptions{.temperature = 0.8, .top_k = 20, .top_p = 0.95, .seed = 4}}) {
    Sampler all(o), few(o);
    for (int i = 0; i < 200; ++i) {
      std::vector<float> a = logits, b = largest;
      ASSERT_EQ(few.sample_among(order, b), all.sample(a, {}, 0)) << i;
    }
  }
}

TEST(Sampler, SaysHowManyLogitsDecide) {
  EXPECT_EQ(Sampler({}).candidates(), 1);
  EXPECT_EQ(Sampler({.temperature = 1, .top_k = 40}).candidates(), 40);
  EXPECT_EQ(Sampler({.temperature = 1}).candidates(), 0);
  EXPECT_EQ(Sampler({.temperature = 1, .top_p = 0.9}).candidates(), 0);
  EXPECT_EQ(Sampler({.repetition_penalty = 1.1}).candidates(), 0);
  EXPECT_EQ(Sampler({.presence_penalty = 0.5}).candidates(), 0);
  EXPECT_EQ(Sampler({.frequency_penalty = 0.5}).candidates(), 0);
  EXPECT_EQ(Sampler({.bias = {{3, 1.f}}}).candidates(), 0);
}

TEST(Sampler, SeedsRepeat) {
  Sampler a({.temperature = 1, .seed = 9}), b({.temperature = 1, .seed = 9});
  for (int i = 0; i < 100; ++i) {
    std::vector<float> l = kLogits, m = kLogits;
    EXPECT_EQ(a.sample(l, {}, 0), b.sample(m, {}, 0));
  }
}

}  // namespace
}  // namespace awq
