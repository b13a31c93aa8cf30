#include "quantizer/gptq.h"

#include <gtest/gtest.h>

#include <numeric>

#include "quantizer/layer_fixture.h"

namespace awq {
namespace {

using Square = std::vector<std::vector<double>>;

Square inverse(Square a) {
  const size_t n = a.size();
  Square b(n, std::vector<double>(n));
  for (size_t i = 0; i < n; ++i) b[i][i] = 1;
  for (size_t c = 0; c < n; ++c) {
    const double pivot = a[c][c];
    for (size_t j = 0; j < n; ++j) a[c][j] /= pivot, b[c][j] /= pivot;
    for (size_t r = 0; r < n; ++r) {
      if (r == c) continue;
      const double f = a[r][c];
      for (size_t j = 0; j < n; ++j) a[r][j] -= f * a[c][j], b[r][j] -= f * b[c][j];
    }
  }
  return b;
}

/// U with U^T U = a.
Square upper_cholesky(const Square& a) {
  const size_t n = a.size();
  Square u(n, std::vector<double>(n));
  for (size_t i = 0; i < n; ++i)
    for (size_t j = i; j < n; ++j) {
      double sum = a[i][j];
      for (size_t k = 0; k < i; ++k) sum -= u[k][i] * u[k][j];
      u[i][j] = i == j ? std::sqrt(sum) : sum / u[i][i];
    }
  return u;
}

// The paper's algorithm 1 in double: columns in order of the diagonal, each one's error spread over those after it by
// the inverse's Cholesky factor.
std::vector<uint8_t> published(const Layer& l, float share) {
  const size_t n = size_t(Layer::kCols);
  std::vector<int64_t> order(n);
  std::iota(order.begin(), order.end(), int64_t(0));
  const auto at = [&](int64_t i, int64_t j) { return double(l.gram.at(i, j)) / (l.divisor(i) * l.divisor(j)); };
  std::ranges::stable_sort(order, [&](int64_t a, int64_t b) { return at(a, a) > at(b, b); });
  Square h(n, std::vector<double>(n));
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < n; ++j) h[i][j] = at(order[i], order[j]) + (i == j ? l.damping(share) : 0);
  const Square u = upper_cholesky(inverse(h));
  std::vector<uint8_t> codes(size_t(Layer::kRows) * n);
  for (int64_t r = 0; r < Layer::kRows; ++r) {
    std::vector<double> w;
    for (int64_t c : order) w.push_back(double(l.w.as<float>()[size_t(r * Layer::kCols + c)]));
    for (size_t i = 0; i < n; ++i) {
      const size_t place = size_t(r * Layer::kCols + order[i]), group = place / size_t(l.q.spec.group_size);
      const double scale = double(l.q.scales.as<float>()[group]), zero = double(l.q.zeros.as<uint8_t>()[group]);
      const double code = std::clamp(std::nearbyint(w[i] / scale) + zero, 0.0, double(l.q.spec.levels()));
      codes[place] = uint8_t(code);
      const double error = (w[i] - (code - zero) * scale) / u[i][i];
      for (size_t j = i + 1; j < n; ++j) w[j] -= error * u[i][j];
    }
  }
  return codes;
}

class GptqCodes : public testing::TestWithParam<bool> {};

// In float a target lies within about kCols * 2^-24 of the largest sum, 2^-16 of a step here, so that a code in some
// thousands may fall to the other side of a tie, and takes those after it in its row along.
TEST_P(GptqCodes, CodesAreThoseOfThePublishedAlgorithm) {
  for (const auto& [bits, group] : {std::pair(4, 64), std::pair(3, 32), std::pair(8, 128)}) {
    Layer layer(bits, group, GetParam());
    const QMatrix plain = layer.q;
    const std::vector<uint8_t> want = published(layer, 0.01f),
                               rounded(plain.codes.as<uint8_t>().begin(), plain.codes.as<uint8_t>().end());
    const double before = layer.loss(0);
    Compensation(layer.host, layer.gram, layer.divisors, 0.01f).round(layer.host, layer.w, layer.q);
    int64_t differ = 0, moved = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      differ += want[i] != layer.q.codes.as<uint8_t>()[i];
      moved += want[i] != rounded[i];
    }
    EXPECT_GT(moved, int64_t(want.size() / 20));
    EXPECT_LE(differ, 2 * Layer::kCols) << bits;
    EXPECT_LT(layer.loss(0), 0.9 * before);
  }
}
INSTANTIATE_TEST_SUITE_P(Divisors, GptqCodes, testing::Bool());

TEST(Gptq, TheFactorTimesItsTransposeIsTheMatrix) {
  for (const int64_t n : {16, 64, 208}) {
    ThreadPool pool(2);
    const Host host{pool, kernels::select()};
    std::mt19937 rng(3);
    std::normal_distribution<float> normal;
    Tensor x = Tensor::empty({3 * n, n}, DType::f32);
    for (float& v : x.as<float>()) v = normal(rng);
    Gram c(n), m(n);
    c.add(host, x);
    m.add(host, x);
    factor_upper(host, m);
    // Backward error of Cholesky: at most (n + 1) * 2^-24 * sqrt(C_ii C_jj), Higham's theorem 10.3.
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = i; j < n; ++j) {
        double sum = 0;
        for (int64_t k = j; k < n; ++k) sum += double(m.at(i, k)) * double(m.at(j, k));
        const double bound = double(n + 1) * 0x1p-24 * std::sqrt(double(c.at(i, i)) * double(c.at(j, j)));
        ASSERT_NEAR(sum, double(c.at(i, j)), bound) << i << ' ' << j;
      }
  }
}

TEST(Gptq, AMatrixThatIsNotPositiveIsRefused) {
  ThreadPool pool(1);
  Gram zero(64);
  EXPECT_THROW(factor_upper({pool, kernels::select()}, zero), Error);
}

// A layer that nothing ever reaches: no inputs other than zero.
TEST(Gptq, InputsOfZerosLeaveTheCodesOfRounding) {
  Layer layer(4, 64, false);
  const Tensor rounded = layer.q.codes.clone();
  Compensation(layer.host, Gram(Layer::kCols), {}, 0.01f).round(layer.host, layer.w, layer.q);
  EXPECT_TRUE(std::ranges::equal(rounded.as<uint8_t>(), layer.q.codes.as<uint8_t>()));
}

TEST(Gptq, TheSameBytesForAnyNumberOfThreads) {
  Layer one(4, 64, true, 1), three(4, 64, true, 3);
  for (Layer* l : {&one, &three}) Compensation(l->host, l->gram, l->divisors, 0.01f).round(l->host, l->w, l->q);
  EXPECT_TRUE(std::ranges::equal(one.q.codes.as<uint8_t>(), three.q.codes.as<uint8_t>()));
}

}  // namespace
}  // namespace awq
