#include "quant/survey.h"

#include <gtest/gtest.h>

#include <random>

namespace awq {
namespace {

/// Rows of 64 columns in groups of 32, with code(i) of element i.
template <class F>
QMatrix matrix(int64_t rows, int bits, F code) {
  QMatrix q = QMatrix::empty({rows, 64}, {.bits = bits, .group_size = 32});
  for (size_t i = 0; i < q.codes.as<uint8_t>().size(); ++i) q.codes.as<uint8_t>()[i] = uint8_t(code(i));
  for (size_t i = 0; i < q.scales.as<float>().size(); ++i) q.scales.as<float>()[i] = float(i + 1) / 8;
  std::ranges::fill(q.zeros.as<uint8_t>(), uint8_t(3));
  return q;
}

TEST(Survey, Counts) {
  ThreadPool pool(1);
  QMatrix q = matrix(2, 2, [](size_t i) { return i < 32 ? 1 : i % 4; });
  q.zeros.as<uint8_t>()[2] = 1;
  q.scales.as<float>()[0] = 0;
  q.scales.as<float>()[1] = -0.25f;
  const CodeSurvey s = survey(q, pool);
  EXPECT_EQ(s.codes, (std::vector<int64_t>{24, 56, 24, 24}));
  EXPECT_EQ(s.zeros, (std::vector<int64_t>{0, 1, 0, 3}));
  EXPECT_EQ(s.groups, 4);
  EXPECT_EQ(s.equal_groups, 1);
  EXPECT_EQ(s.zero_scales, 1);
  EXPECT_EQ(s.lost_groups, 0);  // all of its weights are the same
  EXPECT_EQ(s.smallest_scale, 0.25f);
  EXPECT_EQ(s.largest_scale, 0.5f);
  EXPECT_EQ(s.low(), 24 / 128.);
  EXPECT_EQ(s.high(), 24 / 128.);
  EXPECT_TRUE(suspicions(s).empty());
}

TEST(Survey, IsTheSameForAnyNumberOfThreads) {
  std::mt19937 rng(3);
  const QMatrix q = matrix(37, 4, [&](size_t) { return rng() % 16; });
  ThreadPool one(1), three(3);
  const CodeSurvey a = survey(q, one), b = survey(q, three);
  EXPECT_EQ(a.codes, b.codes);
  EXPECT_EQ(a.zeros, b.zeros);
  EXPECT_EQ(std::tuple(a.groups, a.equal_groups, a.smallest_scale, a.largest_scale),
            std::tuple(b.groups, b.equal_groups, b.smallest_scale, b.largest_scale));
}

TEST(Survey, NamesWhatNoRoundingGives) {
  ThreadPool pool(1);
  const auto said = [&](const QMatrix& q) { return suspicions(survey(q, pool)); };
  QMatrix q = matrix(2, 4, [](size_t i) { return i % 16; });
  EXPECT_TRUE(said(q).empty());
  q.scales.as<float>()[3] = 0;
  EXPECT_EQ(
      said(q),
      (std::vector<std::string>{"1 of 4 groups have the scale 0 beside codes that differ: their weights are lost"}));
  EXPECT_EQ(said(matrix(2, 4, [](size_t) { return 9; })), (std::vector<std::string>{"every code is 9"}));
  EXPECT_EQ(said(matrix(2, 4, [](size_t i) { return i % 2 * 15; })),
            (std::vector<std::string>{"100.0 % of the codes are 0 or 15; rounding gives 59.6 % at most"}));
}

// Even weights come to within 3 percent points of the bound where ranges are cut to half, and stay below it but for
// what 65536 of them vary by (a standard deviation of 0.2); bell-shaped ones stay far below. Cut to a third they are
// beyond.
TEST(Survey, SaturationOfRoundedWeights) {
  ThreadPool pool(1);
  std::mt19937 rng(5);
  std::uniform_real_distribution<float> flat(-1, 1);
  std::normal_distribution<float> bell;
  const auto share = [&](const QuantSpec& spec, bool normal, float cut) {
    Tensor w = Tensor::empty({64, 1024}, DType::f32);
    for (float& v : w.as<float>()) v = normal ? bell(rng) : flat(rng);
    std::vector<Range> ranges;
    for (int64_t i = 0; i < 64 * 1024 / spec.group_size; ++i) {
      const Range r = range_of(w.as<float>().subspan(size_t(i * spec.group_size), size_t(spec.group_size)));
      ranges.push_back(r.clipped(cut * r.largest()));
    }
    const CodeSurvey s = survey(quantize(w, spec, ranges), pool);
    return s.low() + s.high();
  };
  for (const int bits : {2, 3, 4, 8})
    for (const int group : {32, 128, 1024})
      for (const bool symmetric : {false, true}) {
        const QuantSpec spec{.bits = bits, .group_size = group, .symmetric = symmetric};
        const double most = most_saturated(spec), even = share(spec, false, 0.5f);
        EXPECT_LT(even, most + 4 * 0.002) << bits << " " << group;
        EXPECT_GT(even, most - (group == 32 ? 0.08 : 0.03)) << bits << " " << group;  // 2 / 32 for the ends of groups
        EXPECT_LT(share(spec, true, 0.5f), most - 0.1);
        EXPECT_LT(share(spec, false, 1.f), even / 1.3);
        if (group > 32) {
          EXPECT_GT(share(spec, false, 0.33f), most);
        }
      }
}

}  // namespace
}  // namespace awq
