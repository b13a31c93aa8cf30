#include "quantizer/search.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <tuple>

#include "float_set.h"

namespace awq {
namespace {

struct Fixture {
  ThreadPool pool{2};
  Host host{pool, float_set()};
};

Tensor matrix(const nlohmann::json& rows) {
  Tensor t = Tensor::empty({int64_t(rows.size()), int64_t(rows[0].size())}, DType::f32);
  size_t i = 0;
  for (const auto& row : rows)
    for (const auto& v : row) t.as<float>()[i++] = v.get<float>();
  return t;
}

Tensor random_matrix(int64_t rows, int64_t cols, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  Tensor t = Tensor::empty({rows, cols}, DType::f32);
  for (float& v : t.as<float>()) v = normal(rng);
  return t;
}

Tensor matrix_of(const Rows& w) {
  Tensor t = Tensor::empty({w.rows, w.cols}, DType::f32);
  w.read(0, w.rows, t.as<float>().data());
  return t;
}

// Double-precision definitions to compare with.
double output_error(const Tensor& x, const Tensor& w, const Tensor& rounded) {
  const int64_t tokens = x.shape()[0], k = x.shape()[1], n = w.shape()[0];
  double sum = 0;
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t r = 0; r < n; ++r) {
      double y = 0;
      for (int64_t c = 0; c < k; ++c)
        y += double(x.as<float>()[size_t(t * k + c)]) *
             (double(rounded.as<float>()[size_t(r * k + c)]) - double(w.as<float>()[size_t(r * k + c)]));
      sum += y * y;
    }
  return sum;
}

TEST(Gram, LossIsTheOutputErrorOverAllTokens) {
  Fixture f;
  const Tensor x = random_matrix(300, 96, 1), w = random_matrix(37, 96, 2);
  Gram gram(96);
  gram.add(f.host, x.rows(0, 117));
  gram.add(f.host, x.rows(117, 300));
  const QuantSpec spec{.bits = 4, .group_size = 32};
  const std::vector<float> ones(96, 1.f);
  const Tensor rounded = matrix_of(effective(w, ones, spec));
  const double exact = output_error(x, w, rounded);
  // The Gram matrix is in float: 300 products a chunk and channel pair, so 2^-24 * sqrt(300) relative, and errors of
  // both signs meet in the sum.
  EXPECT_NEAR(QuadraticForm(f.host, gram).loss(w, rounded) / exact, 1, 1e-5);
  const std::vector<std::vector<float>> scales = {ones};
  EXPECT_NEAR(gram_losses(QuadraticForm(f.host, gram), std::vector<Rows>{w}, scales, spec)[0] / exact, 1, 1e-5);
  EXPECT_NEAR(QuadraticForm(f.host, gram).energy(w) / output_error(x, w, Tensor::zeros(w.shape(), DType::f32)), 1,
              1e-5);
}

// Inputs, C and e are rounded to bfloat16, each to 2^-9. Terms of a definite form partly cancel, the more the more they
// are.
TEST(Gram, OnTilesIsExactToTheRoundingOfBfloat16) {
  const kernels::KernelSet& tiles = kernels::select();
  if (!has_tiles(tiles)) GTEST_SKIP() << "this CPU has no kernel set with tiles, so there is nothing to compare";
  ThreadPool one(1), three(3);
  const Tensor x = random_matrix(300, 96, 1), m = random_matrix(150, 96, 2);
  const Rows w(m);
  Gram exact(96), rounded(96);
  exact.add({one, float_set()}, x);
  rounded.add({three, tiles}, x);
  for (int64_t i = 0; i < 96; ++i)
    for (int64_t j = 0; j < 96; ++j) {
      double sizes = 0;  // of the products
      for (size_t t = 0; t < 300; ++t)
        sizes += std::abs(double(x.as<float>()[t * 96 + size_t(i)]) * x.as<float>()[t * 96 + size_t(j)]);
      ASSERT_NEAR(rounded.at(i, j), exact.at(i, j), sizes * 2 / 512);
    }
  const QuantSpec spec{.bits = 4, .group_size = 32};
  std::vector<std::vector<float>> scales(2, std::vector<float>(96, 1.f));
  for (size_t c = 0; c < 96; ++c) scales[1][c] = c % 2 ? 0.5f : 2.f;
  const auto want = gram_losses(QuadraticForm({one, float_set()}, exact), {&w, 1}, scales, spec);
  const auto found = gram_losses(QuadraticForm({three, tiles}, rounded), {&w, 1}, scales, spec);
  for (size_t i = 0; i < 2; ++i) EXPECT_NEAR(found[i] / want[i], 1, 3. / 512);
  EXPECT_EQ(found, gram_losses(QuadraticForm({one, tiles}, rounded), {&w, 1}, scales, spec));
  // Sets with fused multiply-add compute the same sums in the same order.
  EXPECT_EQ(want, gram_losses(QuadraticForm({three, tiles}, exact, Products::exact), {&w, 1}, scales, spec));
}

// Tokens that fill no tile, and a last panel beyond the last whole tile of channels.
TEST(Gram, OnTilesTakesAnyNumberOfTokensAndChannels) {
  const kernels::KernelSet& tiles = kernels::select();
  if (!has_tiles(tiles)) GTEST_SKIP() << "this CPU has no kernel set with tiles, so there is nothing to compare";
  ThreadPool pool(2);
  for (const int64_t channels : {16, 144, 400})
    for (const int64_t tokens : {1, 31, 33}) {
      const Tensor x = random_matrix(tokens, channels, 1).to(DType::bf16).to(DType::f32);  // no rounding is left
      Gram want(channels), found(channels);
      want.add({pool, float_set()}, x);
      found.add({pool, tiles}, x);
      for (int64_t i = 0; i < channels; ++i)
        for (int64_t j = 0; j < channels; ++j) ASSERT_NEAR(found.at(i, j), want.at(i, j), 1e-4) << i << " " << j;
    }
}

// Blocks above the diagonal count twice. Errors are whole numbers, so only C is rounded: 2^-9 of each term.
TEST(QuadraticForm, OnTilesOfSeveralBlocksOfColumns) {
  const kernels::KernelSet& tiles = kernels::select();
  if (!has_tiles(tiles)) GTEST_SKIP() << "this CPU has no kernel set with tiles, so there is nothing to compare";
  ThreadPool pool(2);
  constexpr int64_t kChannels = 2 * kernels::kTileColumns + 96, kRows = 150;
  Gram gram(kChannels);
  gram.add({pool, float_set()}, random_matrix(40, kChannels, 1));
  Tensor e = random_matrix(kRows, kChannels, 2);
  for (float& v : e.as<float>()) v = std::round(4 * v);
  double exact = 0, sizes = 0;
  for (int64_t r = 0; r < kRows; ++r)
    for (int64_t i = 0; i < kChannels; ++i)
      for (int64_t j = 0; j < kChannels; ++j) {
        const double term = double(e.as<float>()[size_t(r * kChannels + i)]) * gram.at(i, j) *
                            double(e.as<float>()[size_t(r * kChannels + j)]);
        exact += term, sizes += std::abs(term);
      }
  const double found = QuadraticForm({pool, tiles}, gram).energy(e);
  EXPECT_NEAR(found, exact, sizes / 512);
  // Roundings of both signs meet in a million terms a row; a block that is missing or counted twice is some 10 %.
  EXPECT_NEAR(found / exact, 1, 1e-3);
}

// Both triangles, also in the last tile, which is narrower than the others.
TEST(Gram, HoldsTheProductsOfChannels) {
  Fixture f;
  const Tensor x = random_matrix(50, 160, 3);
  Gram gram(160);
  gram.add(f.host, x);
  for (int64_t i = 0; i < 160; ++i)
    for (int64_t j = 0; j < 160; ++j) {
      double sum = 0;
      for (size_t t = 0; t < 50; ++t)
        sum += double(x.as<float>()[t * 160 + size_t(i)]) * x.as<float>()[t * 160 + size_t(j)];
      ASSERT_NEAR(gram.at(i, j), sum, 1e-4);  // 50 products of about 1: 50 * 2^-24 * 10 at most
    }
}

// Inputs that are divided by s and weights that are multiplied by it have the error of round(w s) / s on the inputs.
TEST(Gram, DivisorsStandForInputsThatWereDivided) {
  Fixture f;
  const Tensor x = random_matrix(200, 64, 1), w = random_matrix(40, 64, 2);
  const QuantSpec spec{.bits = 4, .group_size = 32};
  std::vector<float> s;
  for (int i = 0; i < 64; ++i) s.push_back(0.5f + 0.03f * float(i));
  Tensor scaled = w.clone(), divided = x.clone();
  for (size_t i = 0; i < scaled.as<float>().size(); ++i) scaled.as<float>()[i] *= s[i % 64];
  for (size_t i = 0; i < divided.as<float>().size(); ++i) divided.as<float>()[i] /= s[i % 64];
  Gram gram(64), own(64);
  gram.add(f.host, x);
  own.add(f.host, divided);
  const Tensor rounded = dequantize(quantize(scaled, spec));
  EXPECT_NEAR(QuadraticForm(f.host, gram).loss(scaled, rounded, s) / QuadraticForm(f.host, own).loss(scaled, rounded),
              1, 1e-5);
  const auto ranges = best_ranges(f.host, scaled, gram, spec, s), want = best_ranges(f.host, scaled, own, spec);
  int same = 0;
  for (size_t i = 0; i < ranges.size(); ++i) same += ranges[i] == want[i];
  EXPECT_GE(same, 78);  // of 80: rounding may turn the choice between ranges of nearly one error
}

TEST(Gram, DoesNotDependOnThreads) {
  ThreadPool one(1), three(3);
  const Tensor x = random_matrix(200, 160, 1), m = random_matrix(200, 160, 2);
  const Rows w(m);
  Gram a(160), b(160);
  a.add({one, kernels::select()}, x);
  b.add({three, kernels::select()}, x);
  for (int64_t t = 0; t < a.tiles(); ++t)
    EXPECT_EQ(0, memcmp(a.tile(t), b.tile(t), size_t(a.rows(t) * Gram::kTile) * sizeof(float)));
  const std::vector<std::vector<float>> s = {std::vector<float>(160, 1.f)};
  const QuantSpec spec{.bits = 4, .group_size = 32};
  EXPECT_EQ(gram_losses(QuadraticForm(Host{one, kernels::select()}, a), {&w, 1}, s, spec),
            gram_losses(QuadraticForm(Host{three, kernels::select()}, a), {&w, 1}, s, spec));
}

TEST(Scales, IdentityIsFirstAndOnes) {
  const auto grid = candidates(20);
  ASSERT_EQ(grid.size(), 42u);
  EXPECT_TRUE(grid[0].identity());
  const float m[] = {1, 2, 3}, w[] = {0.1f, 0.2f, 0.3f};
  EXPECT_EQ(scales_of(grid[0], m, w), std::vector<float>(3, 1.f));
  const auto s = scales_of({0.5f, false}, m, w);
  EXPECT_NEAR(s[0] * s[2], 1, 1e-6);  // normalised by sqrt(max * min)
  EXPECT_NEAR(s[1] / s[0], std::sqrt(2.f), 1e-6);
}

TEST(Scales, TiedHeadsAverageOverTheHeadsThatShareAKvHead) {
  const float c[] = {1, 2, 3, 4, 5, 6, 7, 8};  // four query heads of two channels, two kv heads
  EXPECT_EQ(tied(c, 2, 2), (std::vector<float>{2, 3, 2, 3, 6, 7, 6, 7}));
}

class Vectors : public testing::Test {
 protected:
  void SetUp() override {
    std::ifstream file(std::string(AWQ_SHARED_DIR) + "/vectors/awq-vectors.json");
    if (!file) GTEST_SKIP() << "shared/vectors/awq-vectors.json is not there";
    v = nlohmann::json::parse(file).at("search");
    w = matrix(v.at("W"));
    x = matrix(v.at("X"));
    spec = {.bits = v.at("bits"), .group_size = v.at("group"), .scale_dtype = DType::f32};
    gram = Gram(16);
    gram.add(f.host, x);
    for (int64_t c = 0; c < 16; ++c) {
      double sum = 0;
      for (int64_t t = 0; t < x.shape()[0]; ++t) sum += std::abs(x.as<float>()[size_t(t * 16 + c)]);
      mean_abs.push_back(float(sum / double(x.shape()[0])));
    }
  }
  void expect_losses(const nlohmann::json& want, bool weight_term, int best) {
    std::vector<std::vector<float>> scales;
    for (int i = 0; i < 20; ++i)
      scales.push_back(scales_of({float(i) / 20, weight_term}, mean_abs,
                                 weight_mean(f.host, std::vector<Rows>{w}, spec.group_size)));
    const auto losses = gram_losses(QuadraticForm(f.host, gram), std::vector<Rows>{w}, scales, spec);
    for (size_t i = 0; i < 20;
         ++i)  // vectors are double arithmetic, ours is float: 1e-5 leaves room for a sum of 16 x 16
      EXPECT_NEAR(losses[i] / double(w.shape()[0] * x.shape()[0]) / want.at(i).get<double>(), 1, 1e-5) << i;
    EXPECT_EQ(std::min_element(losses.begin(), losses.end()) - losses.begin(), best);
  }
  Fixture f;
  nlohmann::json v;
  Tensor w, x;
  Gram gram;
  QuantSpec spec;
  std::vector<float> mean_abs;
};

TEST_F(Vectors, Statistics) {
  const auto wm = weight_mean(f.host, std::vector<Rows>{w}, spec.group_size);
  for (size_t i = 0; i < 16; ++i) {
    EXPECT_NEAR(mean_abs[i], v.at("x_mean").at(i).get<double>(), 1e-6);
    EXPECT_NEAR(wm[i], v.at("w_mean").at(i).get<double>(), 1e-6);
  }
}

TEST_F(Vectors, ScaleSearchWithoutWeightTerm) { expect_losses(v.at("plain"), false, v.at("best_plain")); }
TEST_F(Vectors, ScaleSearchWithWeightTerm) { expect_losses(v.at("duo"), true, v.at("best_duo")); }

TEST_F(Vectors, ClipSearch) {
  const auto ranges = best_ranges(f.host, w, gram, spec, {},
                                  {.both = 10, .each = 0, .patience = 10});  // the published grid ends at 0.55
  std::string want, got;
  for (const auto& c : v.at("clip")) want += fmt::format("{} ", c.at("best_step").get<int>());
  for (size_t i = 0; i < ranges.size(); ++i) {
    const Range r = range_of(w.as<float>().subspan(i * size_t(spec.group_size), size_t(spec.group_size)));
    got += fmt::format("{} ", int(std::lround((1 - ranges[i].largest() / r.largest()) / 0.05)));
  }
  EXPECT_EQ(got, want);
}

// The same search as a definition: every range of the steps in order, errors in double precision from the inputs.
Range searched(const Tensor& x, std::span<const float> w, const QuantSpec& spec, RangeSteps steps) {
  const Range whole = range_of(w);
  const Tensor row = Tensor::of<float>(w, {1, int64_t(w.size())});
  Range best = whole;
  double least = INFINITY;
  const auto better = [&](Range r) {
    Tensor rounded = Tensor::empty(row.shape(), DType::f32);
    round_to(w, grid_of(r, spec), spec.levels(), rounded.as<float>().data());
    const double loss = output_error(x, row, rounded), before = std::exchange(least, std::min(least, loss));
    if (loss < before) best = r;
    return loss < before;
  };
  const auto go = [&](int begin, int end, auto range_of_share) {
    for (int i = begin, in_vain = 0; i < end && in_vain < steps.patience; ++i)
      in_vain = better(range_of_share(1.f - 0.05f * float(i))) ? 0 : in_vain + 1;
  };
  go(0, steps.both, [&](float s) { return whole.clipped(s * whole.largest()); });
  go(1, steps.each + 1, [&](float s) { return Range{s * whole.low, best.high}; });
  go(1, steps.each + 1, [&](float s) { return Range{best.low, s * whole.high}; });
  return best;
}

TEST(Ranges, EndsAreSearchedOneByOneUnderTheGroupsOwnInputs) {
  Fixture f;
  const QuantSpec spec{.bits = 4, .group_size = 32};
  const Tensor x = random_matrix(100, 64, 5), w = random_matrix(40, 64, 6);
  Gram gram(64);
  gram.add(f.host, x);
  const auto ranges = best_ranges(f.host, w, gram, spec);
  int lopsided = 0, same = 0;
  for (size_t i = 0; i < ranges.size(); ++i) {
    Tensor inputs = Tensor::empty({100, 32}, DType::f32);
    for (size_t t = 0; t < 100; ++t)
      std::ranges::copy(x.as<float>().subspan(t * 64 + i % 2 * 32, 32), inputs.as<float>().data() + t * 32);
    const auto group = w.as<float>().subspan(i * 32, 32);
    same += ranges[i] == searched(inputs, group, spec, {});
    lopsided += ranges[i] != searched(inputs, group, spec, {.both = 11, .each = 0});
  }
  EXPECT_EQ(same, 80);
  EXPECT_GT(lopsided, 20);  // or the ends were never tried by themselves
}

}  // namespace
}  // namespace awq
