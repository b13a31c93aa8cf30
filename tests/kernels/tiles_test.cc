#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "kernels/int_matrix.h"
#include "kernels/sets.h"

namespace awq::kernels {
namespace {

/// Activations, and the memory the contract gives them.
class TileInput {
 public:
  TileInput(const KernelSet& set, const std::vector<float>& x, int tokens, int cols, bool pairs)
      : values_(size_t((tokens + set.token_block - 1) / set.token_block * set.token_block * cols * (pairs ? 2 : 1))),
        view{values_.data(), tokens, cols, pairs} {
    const Guarded<float> exact_size(x);
    set.split_bf16(exact_size.data(), view, 0, tokens, 0, cols);
  }

 private:
  Guarded<uint16_t> values_;

 public:
  const ActBf16 view;
};

/// Weights of bf16 or f16 in panels.
struct FloatPanels {
  bool half;
  int rows, cols;
  Guarded<uint16_t> values;  // [rows / 16][cols][16]
  FloatPanels(bool f16, int r, int c, unsigned seed)
      : half(f16), rows(r), cols(c), values(size_t((r + kPanel - 1) / kPanel * kPanel * c)) {
    const auto v = normals(values.size(), seed);
    for (size_t i = 0; i < v.size(); ++i) values[i] = bits(v[i]);
  }
  uint16_t bits(float v) const { return half ? f32_to_f16(v) : f32_to_bf16(v); }
  double at(int r, int c) const {
    const uint16_t v = values[size_t((r / kPanel * cols + c) * kPanel + r % kPanel)];
    return half ? f16_to_f32(v) : bf16_to_f32(v);
  }
  auto product(const KernelSet& set) const { return half ? set.tiles_f16 : set.tiles_bf16; }
};

/// y [tokens][rows + 3], whose gaps must stay.
struct Output {
  int tokens, rows;
  Guarded<float> y;
  Output(int t, int r) : tokens(t), rows(r), y(size_t(t * (r + 3)), -7.f) {}
  ptrdiff_t row() const { return rows + 3; }
  float at(int t, int r) const { return y[size_t(t * row() + r)]; }
  void expect_gaps() const {
    for (int t = 0; t < tokens; ++t)
      for (int r = rows; r < row(); ++r) ASSERT_EQ(at(t, r), -7.f) << t << "," << r;
  }
};

void multiply(const KernelSet& set, const FloatPanels& w, const std::vector<float>& x, const Output& out) {
  const TileInput act(set, x, out.tokens, w.cols, true);
  const int panels = (w.rows + kPanel - 1) / kPanel, half = panels / 2;
  w.product(set)(w.values.data(), w.rows, act.view, out.y.data(), out.row(), 0, half, 0, w.cols);
  w.product(set)(w.values.data(), w.rows, act.view, out.y.data(), out.row(), half, panels, 0, w.cols);
}
void multiply(const KernelSet& set, const Matrix& w, const std::vector<float>& x, const Output& out) {
  const Guarded<uint8_t> stream(w.stream());
  const TileInput act(set, x, out.tokens, w.cols, false);
  set.tiles_int(w.view(stream.data()), act.view, out.y.data(), out.row(), 0, w.panels());
}
template <class Weights>
std::unique_ptr<Output> product(const KernelSet& set, const Weights& w, const std::vector<float>& x, int tokens) {
  auto out = std::make_unique<Output>(tokens, w.rows);
  multiply(set, w, x, *out);
  return out;
}

double at(const FloatPanels& w, int r, int c) { return w.at(r, c); }
double at(const Matrix& w, int r, int c) {
  const size_t g = size_t(r * w.groups() + c / w.group);
  return (int(w.codes[size_t(r * w.cols + c)]) - w.zeros[g]) * double(w.scales[g]);
}

// A sum of `cols` products rounds each term once, by 2^-24 of what is summed so far. Beside that
//   pairs   high is x to 2^-9, low is the rest to 2^-9: 2^-18 of x; weights are exact, but of f16 ones what is beyond
//           2^-9 does not meet x's low part, 2^-9 as well
//   4 and 8 bits   x and w each to 2^-9; w is off before that by the roundings of its offset, at most 2^bits + zero
//           steps, and of the multiplication: 2^-24 * 2^(bits + 1) steps, of scales that have 24 bits
double bound(const FloatPanels& w, int, int, double) { return w.half ? 0x1p-17 : 0x1p-18; }
double bound(const Matrix& w, int r, int c, double weight) {
  const double step = w.scales[size_t(r * w.groups() + c / w.group)] * std::ldexp(kU, w.bits + 1);
  return 0x1p-8 + 0x1p-18 + (weight == 0 ? 0 : step / std::abs(weight));
}

template <class Weights>
void expect_close(const Weights& w, const std::vector<float>& x, const Output& y) {
  for (int t = 0; t < y.tokens; ++t)
    for (int r = 0; r < y.rows; ++r) {
      double exact = 0, limit = 0, magnitude = 0;
      for (int c = 0; c < w.cols; ++c) {
        const double a = x[size_t(t * w.cols + c)], b = at(w, r, c);
        exact += a * b;
        magnitude += std::abs(a * b);
        limit += std::abs(a * b) * bound(w, r, c, b);
      }
      ASSERT_LE(std::abs(y.at(t, r) - exact), limit + (w.cols + 2) * kU * magnitude) << t << "," << r;
    }
  y.expect_gaps();
}

class TilesTest : public KernelTest {};

TEST_P(TilesTest, PairsKeepFloatActivations) {
  for (const int tokens : {1, 4, 15, 16, 17, 40, 300})
    for (const auto& [rows, cols] : {std::pair(16, 32), {41, 96}, {300, 544}}) {
      if (tokens == 300 && rows == 41) continue;
      for (const bool half : {false, true}) {
        SCOPED_TRACE(testing::Message() << tokens << " tokens, " << rows << " x " << cols << (half ? ", f16" : ""));
        const FloatPanels w(half, rows, cols, 3);
        const auto x = normals(size_t(tokens * cols), 4);
        expect_close(w, x, *product(*set().set, w, x, tokens));
      }
    }
}

TEST_P(TilesTest, CodesOfFourAndEightBits) {
  for (const int bits : {4, 8})
    for (const int tokens : {1, 16, 33, 70})
      for (const auto& [cols, group] : {std::pair(32, 32), {320, 64}, {640, 128}})
        for (const unsigned seed : {2u, 3u}) {  // scales of 16 and of 32 bits
          SCOPED_TRACE(testing::Message() << bits << " bits, " << tokens << " tokens, " << cols << " / " << group);
          const Matrix w(52, cols, group, seed, bits);
          const auto x = normals(size_t(tokens * cols), 4);
          expect_close(w, x, *product(*set().set, w, x, tokens));
        }
}

// Whole numbers have nothing to round: every place of a block, of a chunk and of the last partial ones must be right.
TEST_P(TilesTest, WholeNumbersAreExact) {
  std::mt19937 rng(5);
  constexpr int kTokens = 530, kRows = 277, kCols = 544;
  Matrix w(kRows, kCols, 32, 2);
  std::ranges::fill(w.scales, 0.25f);
  std::vector<float> x(size_t(kTokens * kCols));
  for (float& v : x) v = float(int(rng() % 17) - 8);
  const auto y = product(*set().set, w, x, kTokens);
  for (int t = 0; t < kTokens; ++t)
    for (int r = 0; r < kRows; ++r) {
      int sum = 0;
      for (int c = 0; c < kCols; ++c)
        sum += int(x[size_t(t * kCols + c)]) *
               (w.codes[size_t(r * kCols + c)] - w.zeros[size_t(r * w.groups() + c / w.group)]);
      ASSERT_EQ(y->at(t, r), float(sum) * 0.25f) << t << "," << r;
    }
}

TEST_P(TilesTest, SomeOfTheColumns) {
  constexpr int kTokens = 70, kRows = 80, kCols = 1056;
  std::mt19937 rng(9);
  std::vector<float> x(size_t(kTokens * kCols));
  for (float& v : x) v = float(int(rng() % 17) - 8);
  for (const auto& [pairs, half] : {std::pair(false, false), {false, true}, {true, false}, {true, true}}) {
    FloatPanels w(half, kRows, kCols, 3);
    // 1,025 and its neighbours have a low part, which activations that are no pairs do not meet.
    for (uint16_t& v : w.values) v = w.bits(float(int(rng() % 9) - 4 + (pairs && half ? 1025 : 0)));
    const TileInput act(*set().set, x, kTokens, kCols, pairs);
    for (const auto& [first, last] : {std::pair(0, 512), {512, 1024}, {512, 1056}, {1024, 1056}}) {
      const Output y(kTokens, kRows);
      w.product (*set().set)(w.values.data(), kRows, act.view, y.y.data(), y.row(), 0, kRows / kPanel, first, last);
      for (int t = 0; t < kTokens; ++t)
        for (int r = 0; r < kRows; ++r) {
          double sum = 0;
          for (int c = first; c < last; ++c) sum += double(x[size_t(t * kCols + c)]) * w.at(r, c);
          ASSERT_EQ(y.at(t, r), float(sum)) << t << "," << r << " of columns " << first << " to " << last;
        }
      y.expect_gaps();
    }
  }
}

TEST_P(TilesTest, TokenDoesNotDependOnItsCompany) {
  constexpr int kTokens = 80, kCols = 320;
  const Matrix w(70, kCols, 64, 3);
  const auto x = normals(size_t(kTokens * kCols), 6);
  const auto same = [&](const auto& weights) {
    const auto all = product(*set().set, weights, x, kTokens);
    for (const int t : {0, 17, 79}) {
      const auto one = product(*set().set, weights, {x.begin() + t * kCols, x.begin() + (t + 1) * kCols}, 1);
      for (int r = 0; r < 70; ++r) ASSERT_TRUE(same_bits(one->at(0, r), all->at(t, r))) << t << "," << r;
    }
  };
  same(w);
  same(FloatPanels(false, 70, kCols, 8));
  same(FloatPanels(true, 70, kCols, 8));
}

// A damaged activation is not hidden, and stays in its token.
TEST_P(TilesTest, NanAndInfinityReachTheirTokenOnly) {
  constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  constexpr int kTokens = 40, kCols = 64;
  const Matrix w(20, kCols, 32, 2);
  auto x = normals(size_t(kTokens * kCols), 6);
  x[size_t(3 * kCols + 7)] = nan, x[size_t(17 * kCols + 40)] = inf;
  const auto check = [&](const auto& weights) {
    const auto y = product(*set().set, weights, x, kTokens);
    for (int t = 0; t < kTokens; ++t)
      for (int r = 0; r < 20; ++r) EXPECT_EQ(std::isfinite(y->at(t, r)), t != 3 && t != 17) << t << "," << r;
  };
  check(w);
  check(FloatPanels(false, 20, kCols, 8));
  check(FloatPanels(true, 20, kCols, 8));
}

AWQ_SETS_WITH_TILES(TilesTest);

}  // namespace
}  // namespace awq::kernels
