#include "eval/paired.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace awq {
namespace {

TEST(PairedBootstrap, OfEqualPairsShowsNothing) {
  const std::vector<double> a = {1, 0, 1, 1};
  const Paired p = paired_bootstrap(a, a);
  EXPECT_EQ(p.difference, 0);
  EXPECT_EQ(p.low, 0);
  EXPECT_EQ(p.high, 0);
  EXPECT_EQ(p.p, 1);
}

// Differences of -1 or +1, n each: their mean has the standard error 1 / sqrt(2 n), here 0.1, of which 1.96 are to both
// sides of 0. Of 4,000 resamples an end of the interval is off by sqrt(0.025 * 0.975 / 4000) / 0.58 = 0.0043 deviations
// of a normal distribution's density there, 0.058, times 0.1: within 0.02 for four of these, and a step of 0.02.
TEST(PairedBootstrap, HasTheIntervalOfANormalDistribution) {
  std::vector<double> a, b;
  for (int i = 0; i < 100; ++i) a.push_back(i % 2), b.push_back(1 - i % 2);
  const Paired p = paired_bootstrap(a, b);
  EXPECT_EQ(p.difference, 0);
  EXPECT_NEAR(p.low, -0.196, 0.04);
  EXPECT_NEAR(p.high, 0.196, 0.04);
  EXPECT_GT(p.p, 0.8);
}

// What all pairs agree on is no chance, however much the values themselves vary.
TEST(PairedBootstrap, SeesASmallDifferenceOfAllPairs) {
  std::vector<double> a, b;
  for (int i = 0; i < 50; ++i) a.push_back(std::sin(i) + 0.01 + 0.001 * (i % 3)), b.push_back(std::sin(i));
  const Paired more = paired_bootstrap(a, b), less = paired_bootstrap(b, a);
  EXPECT_NEAR(more.difference, 0.011, 0.001);
  EXPECT_GT(more.low, 0);
  EXPECT_LT(more.p, 0.001);
  EXPECT_NEAR(less.difference, -more.difference, 1e-12);
  EXPECT_LT(less.high, 0);
  EXPECT_LT(less.p, 0.001);
}

// One of ten pairs differs: resamples without it, 0.9^10 = 35 % of them, have the mean 0.
TEST(PairedBootstrap, DoesNotTrustOnePair) {
  std::vector<double> a(10, 0.0), b(10, 0.0);
  a[3] = 1;
  const Paired p = paired_bootstrap(a, b);
  EXPECT_NEAR(p.p, 2 * std::pow(0.9, 10), 0.05);
}

}  // namespace
}  // namespace awq
