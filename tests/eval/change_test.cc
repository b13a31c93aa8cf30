#include "eval/change.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "eval/hadamard.h"
#include "quantizer/block_fixture.h"

namespace awq {
namespace {

// Rows of the identity come out as rows of the matrix: entries are +-1 / sqrt(n) and rows are orthogonal. 36 and 12 are
// what the widths of SmolLM2, 576 and 1536, leave beside a power of two; 28 has no construction but Paley's second.
TEST(HadamardMatrix, IsOneForPowersOfTwoAndBothOfPaleysConstructions) {
  for (const int64_t n : {1, 2, 64, 12, 20, 28, 36, 144, 576}) {
    const Hadamard h(n);
    std::vector<std::vector<float>> rows;
    for (int64_t i = 0; i < n; ++i) {
      std::vector<float> e(size_t(n), 0.f);
      e[size_t(i)] = 1;
      h.rotate(e.data());
      for (float v : e) ASSERT_NEAR(std::abs(v) * std::sqrt(float(n)), 1, 1e-5) << n;
      rows.push_back(e);
    }
    for (size_t i = 0; i < rows.size(); ++i)
      for (size_t j = 0; j <= i; ++j) {
        double dot = 0;
        for (size_t c = 0; c < rows.size(); ++c) dot += double(rows[i][c]) * double(rows[j][c]);
        ASSERT_NEAR(dot, i == j, 1e-5) << n;
      }
  }
  EXPECT_THROW(Hadamard(6), Error);
  EXPECT_THROW(Hadamard(92), Error);  // neither 91 nor 45 is the prime that it would take
}

struct Changes : testing::Test {
  const ScaleGroup& group(Role first) const {
    return *std::ranges::find_if(groups, [=](const ScaleGroup& g) { return g.consumers.front().role == first; });
  }
  Tensor through(const Change& change, Role role, const Tensor& x) const {
    const Block b = change.changed(floats);
    Tensor y = Tensor::empty({x.shape()[0], b[role].rows()}, DType::f32);
    b[role](x, y);
    return y;
  }
  /// The layer's weights, as products with unit vectors show them, [cols][rows].
  Tensor weights(const Change& change, Role role) const {
    const int64_t cols = small.w.spec.shape({role}).second;
    Tensor unit = Tensor::zeros({cols, cols}, DType::f32);
    for (int64_t c = 0; c < cols; ++c) unit.as<float>()[size_t(c * cols + c)] = 1;
    return through(change, role, unit);
  }
  float original(Role role, int64_t row, int64_t col) const {
    const Tensor& w = small.w.tensor({role});
    return w.as<float>()[size_t(row * w.shape()[1] + col)];
  }

  SmallBlock small;
  Block block = upload(*small.dev, small.w, DType::f32);
  BlockCalibration seen = small.seen();
  FloatBlock floats{small.w, block, seen, *small.dev, small.host};
  std::vector<ScaleGroup> groups = scale_groups(small.w.spec);
};

TEST_F(Changes, SalientChannelsStayAsTheyAreAndTheOthersAreRounded) {
  const QuantSpec spec{.bits = 2, .group_size = 32};
  const auto kept = salient_channels(floats, group(Role::q), {Role::k}, Salience::activation, 0.05);
  ASSERT_EQ(kept.size(), 6u);  // of 128
  // The fixture has every 11th of them eight times as large, before a norm whose gains are random.
  const std::vector<float> m = seen.sites.at({Role::q}).mean_abs();
  const auto larger = std::ranges::count_if(m, [&](float v) { return v > m[size_t(kept.back())]; });
  EXPECT_EQ(larger, 5);
  const Tensor w = weights(*keeping_salient(spec, Salience::activation, 0.05), Role::k),
               plain = weights(*keeping_salient(spec, Salience::activation, 0), Role::k);
  const Tensor rounded = dequantize(quantize(small.w.tensor({Role::k}), spec));
  for (int64_t c = 0; c < 128; ++c)
    for (int64_t r = 0; r < 64; ++r) {
      const float round = rounded.as<float>()[size_t(r * 128 + c)], got = w.as<float>()[size_t(c * 64 + r)];
      EXPECT_EQ(got, std::ranges::count(kept, c) ? original(Role::k, r, c) : round);
      EXPECT_EQ(plain.as<float>()[size_t(c * 64 + r)], round);
    }
}

TEST_F(Changes, SalienceByWeightNormTakesTheLongestColumnsAndRandomIsNeither) {
  const auto norm = [&](int64_t c) {
    double sum = 0;
    for (int64_t r = 0; r < 64; ++r) sum += double(original(Role::k, r, c)) * double(original(Role::k, r, c));
    return sum;
  };
  const auto by_norm = salient_channels(floats, group(Role::q), {Role::k}, Salience::weight_norm, 0.05);
  for (int64_t c = 0; c < 128; ++c)
    if (!std::ranges::count(by_norm, c)) {
      EXPECT_LE(norm(c), norm(by_norm.back()));
    }
  const auto random = salient_channels(floats, group(Role::q), {Role::k}, Salience::random, 0.05);
  EXPECT_NE(random, by_norm);
  EXPECT_NE(random, salient_channels(floats, group(Role::q), {Role::k}, Salience::activation, 0.05));
  EXPECT_NE(random, salient_channels(floats, group(Role::q), {Role::q}, Salience::random, 0.05));
}

double output_error(const Tensor& y, const Tensor& reference) {
  double error = 0, energy = 0;
  for (size_t i = 0; i < y.as<float>().size(); ++i) {
    error += std::pow(double(y.as<float>()[i] - reference.as<float>()[i]), 2);
    energy += std::pow(double(reference.as<float>()[i]), 2);
  }
  return error / energy;
}

// What a method leaves of the block is what its codes and folded norms compute: a fold that is left out, or applied to
// codes that have it already, is off by the scales, 1e-1 and more.
TEST_F(Changes, AMethodsBlockIsThatOfItsFoldedWeightsAndTheOriginalStaysAsItIs) {
  const Tensor before = small.w.tensor({Role::attn_norm}).clone();
  Tensor reference = small.hidden.rows(0, 32).clone();
  run_sequences(*small.dev, block, 32, reference);
  const auto error_of = [&](const char* method) {
    Tensor x = small.hidden.rows(0, 32).clone();
    run_sequences(*small.dev, by_method(find_method(method).make(), {.bits = 8, .group_size = 32})->changed(floats), 32,
                  x);
    return output_error(x, reference);
  };
  EXPECT_LT(error_of("awq"), 0.01);
  EXPECT_LT(error_of("rtn"), 0.01);
  EXPECT_GT(error_of("awq"), 0);
  EXPECT_TRUE(std::ranges::equal(before.as<float>(), small.w.tensor({Role::attn_norm}).as<float>()));
}

TEST_F(Changes, NormalFloatTakesTheNearestOfItsSixteenValues) {
  // Quantiles of the normal distribution: QLoRA's code book to four digits.
  const double book[] = {-1,     -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0,
                         0.0796, 0.1609,  0.2461,  0.3379,  0.4407,  0.5626,  0.7230,  1};
  const Tensor w = weights(*nf4(32), Role::k);
  for (int64_t r = 0; r < 64; ++r)
    for (int64_t c = 0; c < 128; ++c) {
      double largest = 0, nearest = 9;
      for (int64_t i = c / 32 * 32; i < c / 32 * 32 + 32; ++i)
        largest = std::max(largest, std::abs(double(original(Role::k, r, i))));
      const double want = double(original(Role::k, r, c)) / largest;
      for (double b : book) nearest = std::min(nearest, std::abs(b - want));
      const double got = double(w.as<float>()[size_t(c * 64 + r)]) / largest;
      EXPECT_NEAR(std::abs(got - want), nearest, 2e-4);
      EXPECT_NEAR(std::ranges::min(book, {}, [=](double b) { return std::abs(b - got); }), got, 1e-4);
    }
}

double rounded(double v, double largest, int bits, double share = 1) {
  const double top = (1 << (bits - 1)) - 1, scale = share * largest / top;
  return std::clamp(std::nearbyint(v / scale), -top - 1, top) * scale;
}

double largest_of(const std::vector<double>& v) {
  double largest = 0;
  for (double x : v) largest = std::max(largest, std::abs(x));
  return largest;
}

// By its definition, in double. A value half-way between two levels may fall to either side in f32: one step of one of
// the 128 products is allowed.
TEST_F(Changes, SmoothQuantIsItsDefinition) {
  const SiteStatistics& site = seen.sites.at({Role::gate});
  std::vector<double> s(128);
  for (int64_t c = 0; c < 128; ++c) {
    double w = 0;
    for (Role role : {Role::gate, Role::up})
      for (int64_t r = 0; r < 192; ++r) w = std::max(w, std::abs(double(original(role, r, c))));
    s[size_t(c)] = std::sqrt(double(site.max_abs[size_t(c)]) / w);
  }
  const Tensor x = site.sample.rows(0, 16), y = through(*smoothquant(), Role::up, x);
  for (int64_t t = 0; t < 16; ++t)
    for (int64_t r = 0; r < 192; ++r) {
      std::vector<double> in, w;
      for (int64_t c = 0; c < 128; ++c) {
        in.push_back(double(x.as<float>()[size_t(t * 128 + c)]) / s[size_t(c)]);
        w.push_back(double(original(Role::up, r, c)) * s[size_t(c)]);
      }
      double sum = 0;
      for (size_t c = 0; c < 128; ++c) sum += rounded(in[c], largest_of(in), 8) * rounded(w[c], largest_of(w), 8);
      EXPECT_NEAR(y.as<float>()[size_t(t * 192 + r)], sum, largest_of(in) * largest_of(w) / 127 * 1.01);
    }
}

TEST_F(Changes, LargestActivationsAreOverAllTokens) {
  Tensor x = small.hidden.clone();
  std::vector<float> largest(128);
  run_sequences(*small.dev, block, 32, x, [&](Site site, const Tensor& in, auto) {
    if (site.role != Role::q) return;
    for (size_t i = 0; i < in.as<float>().size(); ++i)
      largest[i % 128] = std::max(largest[i % 128], std::abs(in.as<float>()[i]));
  });
  EXPECT_EQ(seen.sites.at({Role::q}).max_abs, largest);
}

// The rotation undoes itself, and spreads the fixture's outliers, so that 4 bits do.
TEST_F(Changes, RotatedActivationsAreCloserThanThoseThatAreNot) {
  const Tensor x = seen.sites.at({Role::q}).sample;
  Tensor reference = Tensor::empty({x.shape()[0], 128}, DType::f32);
  block[Role::q](x, reference);
  const double rotated = output_error(through(*w4a4(true), Role::q, x), reference),
               plain = output_error(through(*w4a4(false), Role::q, x), reference);
  EXPECT_LT(rotated, 0.7 * plain);
  EXPECT_LT(rotated, 0.1);
}

}  // namespace
}  // namespace awq
