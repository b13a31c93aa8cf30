#include "quantizer/refine.h"

#include <gtest/gtest.h>

#include "quantizer/layer_fixture.h"

namespace awq {
namespace {

void refine(Layer& l, const Refinement& steps, Products products = Products::exact) {
  refine(QuadraticForm(l.host, l.gram, products), l.w, l.divisors, steps, l.q);
}

struct Case {
  int bits, group;
  bool divided;
};
class Refine : public testing::TestWithParam<Case> {};

TEST_P(Refine, TheLossFallsWithEveryRoundAndZeroPointsStay) {
  const auto [bits, group, divided] = GetParam();
  double before = Layer(bits, group, divided).loss(0.01f);
  for (int rounds = 0; rounds < 4; ++rounds) {
    Layer layer(bits, group, divided);
    const Tensor zeros = layer.q.zeros.clone();
    refine(layer, {.rounds = rounds, .damping = 0.01f});
    const double after = layer.loss(0.01f);
    EXPECT_LT(after, before) << rounds;
    before = after;
    EXPECT_TRUE(std::ranges::equal(zeros.as<uint8_t>(), layer.q.zeros.as<uint8_t>()));
    for (uint8_t code : layer.q.codes.as<uint8_t>()) ASSERT_LE(code, layer.q.spec.levels());
    for (float s : layer.q.scales.as<float>()) ASSERT_EQ(s, rounded_scale(s, QuantSpec()));
  }
}

// Where no round changes anything any more, no code and no scale beside the one chosen gives less by the definition.
// Products in float are off by about sqrt(kCols) * 2^-24 = 1e-6 of the terms they sum, which are larger than the sum.
TEST_P(Refine, EndsWhereNoSingleCodeOrScaleWouldLowerTheLoss) {
  const auto [bits, group, divided] = GetParam();
  Layer layer(bits, group, divided);
  refine(layer, {.rounds = 60, .damping = 1.f});
  const double damp = layer.damping(1.f);
  for (const int64_t r : {0, 47, 50}) {
    const double least = layer.loss(r, 1.f), slack = 1e-5 * least;
    for (int64_t c = 0; c < Layer::kCols; ++c)
      for (int by : {-1, 1}) {
        if (layer.code(r, c) + by < 0 || layer.code(r, c) + by > layer.q.spec.levels()) continue;
        const double d = by * layer.scale(r, c);
        EXPECT_GE(2 * d * layer.slope(r, c, damp) + d * d * layer.curvature(c, damp), -slack) << r << ' ' << c;
      }
    for (int64_t g = 0; g < layer.q.groups(); ++g) {
      float& scale = layer.q.scales.as<float>()[size_t(r * layer.q.groups() + g)];
      for (float factor : {0.998f, 1.002f}) {
        const float kept = scale;
        scale = rounded_scale(kept * factor, QuantSpec());
        EXPECT_GE(layer.loss(r, 1.f), least - slack) << r << ' ' << g;
        scale = kept;
      }
    }
  }
}

TEST_P(Refine, TheSameBytesForAnyNumberOfThreads) {
  const auto [bits, group, divided] = GetParam();
  Layer one(bits, group, divided, 1), three(bits, group, divided, 3);
  refine(one, {});
  refine(three, {});
  EXPECT_TRUE(std::ranges::equal(one.q.codes.as<uint8_t>(), three.q.codes.as<uint8_t>()));
  EXPECT_TRUE(std::ranges::equal(one.q.scales.as<float>(), three.q.scales.as<float>()));
}

// Rounding errors to 2^-9 moves a step by some hundredths of a level, so that codes which are that close to a tie fall
// to its other side: at random, which costs far less than what refining gains (a fifth of the loss and more).
TEST_P(Refine, OnTilesItEndsAsNearAsInFloats) {
  const auto [bits, group, divided] = GetParam();
  Layer floats(bits, group, divided), tiles(bits, group, divided);
  if (!has_tiles(tiles.host.kernels)) GTEST_SKIP() << "this CPU has no matrix tiles";
  refine(floats, {.damping = 0.01f});
  refine(tiles, {.damping = 0.01f}, Products::fastest);
  EXPECT_FALSE(std::ranges::equal(floats.q.codes.as<uint8_t>(), tiles.q.codes.as<uint8_t>()));
  EXPECT_NEAR(tiles.loss(0.01f) / floats.loss(0.01f), 1, 0.03);
}

INSTANTIATE_TEST_SUITE_P(Shapes, Refine,
                         testing::Values(Case{4, 64, false}, Case{4, 32, true}, Case{4, 128, true}, Case{3, 256, false},
                                         Case{2, 64, true}, Case{8, 128, false}),
                         [](const auto& i) {
                           return std::to_string(i.param.bits) + "bits" + std::to_string(i.param.group) +
                                  (i.param.divided ? "divided" : "");
                         });

// One sweep from the left, weight by weight, as the definition says it: a change of d costs 2 d (e C)_j + d^2 C_jj.
TEST(Refine, ASweepIsTheOneOfTheDefinition) {
  Layer layer(4, 64, true);
  Layer want(4, 64, true);
  const double damping = want.damping(0.01f);
  int64_t changed = 0, differ = 0;
  for (int64_t r = 0; r < Layer::kRows; ++r)
    for (int64_t j = 0; j < Layer::kCols; ++j) {
      const double step = want.slope(r, j, damping) / want.curvature(j, damping) / want.scale(r, j);
      const auto next = uint8_t(std::nearbyint(std::clamp(double(want.code(r, j)) - step, 0.0, 15.0)));
      changed += next != want.code(r, j);
      want.code(r, j) = next;
    }
  refine(layer, {.rounds = 0, .damping = 0.01f});
  for (size_t i = 0; i < want.q.codes.as<uint8_t>().size(); ++i)
    differ += want.q.codes.as<uint8_t>()[i] != layer.q.codes.as<uint8_t>()[i];
  EXPECT_GT(changed, Layer::kRows * Layer::kCols / 20);
  // A code within 2^-16 of a step of a tie may fall either way, and takes the rest of its row along.
  EXPECT_LE(differ, Layer::kCols);
  EXPECT_NEAR(layer.loss(0.01f) / want.loss(0.01f), 1, 1e-3);
}

}  // namespace
}  // namespace awq
