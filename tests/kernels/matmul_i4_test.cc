#include <bit>
#include <cmath>
#include <limits>

#include "kernels/sets.h"

namespace awq::kernels {
namespace {

/// A 4-bit matrix as plain arrays, and its stream written from the text of kernels.h.
struct Matrix {
  int rows, cols, group;
  std::vector<uint8_t> codes, zeros;  // [rows][cols], [rows][groups]
  std::vector<float> scales;
  int groups() const { return cols / group; }
  int panels() const { return (rows + kPanel - 1) / kPanel; }

  Matrix(int r, int c, int g, unsigned seed)
      : rows(r), cols(c), group(g), codes(size_t(r * c)), zeros(size_t(r * c / g)), scales(zeros.size()) {
    std::mt19937 rng(seed);
    for (auto& v : codes) v = uint8_t(rng() % 16);
    for (auto& v : zeros) v = uint8_t(rng() % 16);
    for (auto& v : scales) v = float(1 + rng() % 1000) * 1.7e-5f;
  }

  std::vector<uint8_t> stream() const {
    std::vector<uint8_t> out;
    for (int p = 0; p < panels(); ++p)
      for (int g = 0; g < groups(); ++g) write(out, p * kPanel, g);
    return out;
  }

 private:
  static void put(std::vector<uint8_t>& out, uint32_t v) {
    for (int i = 0; i < 4; ++i) out.push_back(uint8_t(v >> 8 * i));
  }
  void write(std::vector<uint8_t>& out, int row, int g) const {
    for (int c = g * group; c < (g + 1) * group; c += 8)
      for (int r = row; r < row + kPanel; ++r) {
        uint32_t word = 0;
        for (int i = 0; i < 8 && r < rows; ++i)
          word |= uint32_t(codes[size_t(r * cols + c + (i < 4 ? 2 * i : 2 * (i - 4) + 1))]) << 4 * i;
        put(out, word);
      }
    for (int r = row; r < row + kPanel; ++r)
      put(out, r < rows ? std::bit_cast<uint32_t>(scales[size_t(r * groups() + g)]) : 0);
    for (int r = row; r < row + kPanel; ++r) out.push_back(r < rows ? zeros[size_t(r * groups() + g)] : uint8_t(0));
  }
};

struct Activations {
  int tokens, cols, group;
  Guarded<int16_t> codes;
  Guarded<float> scales;
  Guarded<int32_t> sums;

  Activations(const KernelSet& set, const std::vector<float>& x, int t, int c, int g)
      : tokens(t), cols(c), group(g), codes(size_t(t * c)), scales(size_t(t * c / g)), sums(scales.size()) {
    const Guarded<float> exact_size(x);
    set.quantize_i16(exact_size.data(), t, c, g, codes.data(), scales.data(), sums.data());
  }
  ActI16 view() const { return {codes.data(), scales.data(), sums.data(), tokens, cols, group}; }
};

int64_t integer_dot(const Matrix& w, const Activations& x, int t, int r, int g) {
  int64_t d = 0;
  for (int c = g * w.group; c < (g + 1) * w.group; ++c)
    d += (int(w.codes[size_t(r * w.cols + c)]) - int(w.zeros[size_t(r * w.groups() + g)])) *
         int64_t(x.codes[size_t(t * x.cols + c)]);
  return d;
}

/// The contract in float, and in double with the bound between them. Integer sums are exact. Each group then rounds
/// ws * xs, float(d), the product (0 times with fma) and the addition: with G groups every term passes at most G + 3
/// roundings of u = 2^-24, so |float - real| <= (G + 3) u sum |ws xs d|, and two sets differ by at most twice that.
struct Expected {
  float chain = 0;
  double real = 0, bound = 0;
};
Expected expected(const Matrix& w, const Activations& x, int t, int r, bool fused) {
  Expected e;
  for (int g = 0; g < w.groups(); ++g) {
    const float ws = w.scales[size_t(r * w.groups() + g)], xs = x.scales[size_t(t * w.groups() + g)];
    const int64_t d = integer_dot(w, x, t, r, g);
    e.chain = fused ? std::fma(ws * xs, float(d), e.chain) : e.chain + ws * xs * float(d);
    e.real += double(ws) * double(xs) * double(d);
    e.bound += std::abs(double(ws) * double(xs) * double(d));
  }
  e.bound *= (w.groups() + 3) * kU;
  return e;
}

class MatmulI4Test : public KernelTest {
 protected:
  void check(const Matrix& w, const std::vector<float>& x, int tokens) {
    SCOPED_TRACE(testing::Message() << "rows " << w.rows << " cols " << w.cols << " group " << w.group << " tokens "
                                    << tokens);
    const Activations act(*set().set, x, tokens, w.cols, w.group);
    const Guarded<uint8_t> stream(w.stream());
    const int y_row = w.rows + 3;
    const Guarded<float> y(size_t(tokens > 0 ? (tokens - 1) * y_row + w.rows : 0), -77.f);
    set()->matmul_i4({stream.data(), w.rows, w.cols, w.group}, act.view(), y.data(), y_row, 0, w.panels());
    for (size_t i = 0; i < y.size(); ++i) {
      const int t = int(i) / y_row, r = int(i) % y_row;
      if (r >= w.rows) {
        ASSERT_EQ(y[i], -77.f) << "written past rows at " << t << "," << r;
        continue;
      }
      const Expected e = expected(w, act, t, r, set().fused());
      ASSERT_TRUE(same_bits(y[i], e.chain)) << t << "," << r << ": " << y[i] << " " << e.chain;
      ASSERT_LE(std::abs(double(y[i]) - e.real), e.bound) << t << "," << r;
    }
  }
};

TEST_P(MatmulI4Test, EveryNumberOfTokens) {
  const Matrix w(50, 192, 64, 1);
  for (int tokens = 0; tokens <= 26; ++tokens) check(w, normals(size_t(tokens * w.cols), 2), tokens);
}

TEST_P(MatmulI4Test, EveryGroupSize) {
  for (int group = 8; group <= kMaxActGroup; group += 8)
    for (const int tokens : {1, 3, 19}) {
      const Matrix w(33, 3 * group, group, unsigned(group));
      check(w, normals(size_t(tokens * w.cols), 3), tokens);
    }
}

TEST_P(MatmulI4Test, LongRowsAndManyTokens) {
  for (const int group : {32, 64, 128, 120}) {
    const Matrix w(31, 1536 / group * group, group, unsigned(group));
    for (const int tokens : {1, 72, 73, 80}) check(w, normals(size_t(tokens * w.cols), 4), tokens);
  }
}

TEST_P(MatmulI4Test, EveryNumberOfRows) {
  for (int rows = 1; rows <= 49; ++rows)
    for (const int tokens : {1, 2, 3, 4, 19})
      check(Matrix(rows, 64, 32, unsigned(rows)), normals(size_t(tokens * 64), 5), tokens);
}

// 128 * 15 * 32767 and zero points that double it: no sum may leave 31 bits. Codes are all equal so that nothing
// cancels.
TEST_P(MatmulI4Test, LargestSums) {
  for (const int code : {0, 15})
    for (const int zero : {0, 15})
      for (const float sign : {1.f, -1.f})
        for (const int tokens : {1, 2, 4, 19}) {
          Matrix w(18, 256, kMaxActGroup, 1);
          std::fill(w.codes.begin(), w.codes.end(), uint8_t(code));
          std::fill(w.zeros.begin(), w.zeros.end(), uint8_t(zero));
          check(w, std::vector<float>(size_t(tokens * 256), sign * 3.5f), tokens);
        }
}

TEST_P(MatmulI4Test, ZerosAndOutliers) {
  const Matrix w(20, 256, 128, 7);
  for (const int tokens : {1, 4, 22}) {
    check(w, std::vector<float>(size_t(tokens * 256), 0.f), tokens);
    auto x = normals(size_t(tokens * 256), 6);
    for (int t = 0; t < tokens; ++t) x[size_t(t * 256 + 17)] = 3e6f;
    check(w, x, tokens);
  }
}

// What 16-bit activations cost against the same weights times the floats themselves: half a step for each value.
TEST_P(MatmulI4Test, CloseToTheFloatProduct) {
  const Matrix w(40, 512, 64, 11);
  const auto x = normals(512, 12);
  const Activations act(*set().set, x, 1, 512, 64);
  const auto stream = w.stream();
  std::vector<float> y(40);
  set()->matmul_i4({stream.data(), 40, 512, 64}, act.view(), y.data(), 40, 0, 3);
  for (int r = 0; r < 40; ++r) {
    double exact = 0, step = 0;
    for (int c = 0; c < 512; ++c) {
      const size_t g = size_t(r * 8 + c / 64);
      const double weight = (w.codes[size_t(r * 512 + c)] - w.zeros[g]) * double(w.scales[g]);
      exact += weight * double(x[size_t(c)]);
      step += std::abs(weight) * double(act.scales[size_t(c / 64)]) / 2;
    }
    EXPECT_LE(std::abs(double(y[size_t(r)]) - exact), 1.001 * step + expected(w, act, 0, r, true).bound);
  }
}

TEST_P(MatmulI4Test, PanelsAndTokensDoNotDependOnTheSplit) {
  const Matrix w(100, 320, 64, 13);
  const auto stream = w.stream();
  const PackedI4 packed{stream.data(), w.rows, w.cols, w.group};
  for (const int tokens : {4, 9, 19}) {
    const Activations act(*set().set, normals(size_t(tokens * w.cols), 14), tokens, w.cols, w.group);
    std::vector<float> whole(size_t(tokens * 100)), split(whole.size()), alone(100);
    set()->matmul_i4(packed, act.view(), whole.data(), 100, 0, 7);
    for (const auto& [b, e] : {std::pair(0, 1), {1, 4}, {4, 4}, {4, 7}})
      set()->matmul_i4(packed, act.view(), split.data(), 100, b, e);
    for (size_t i = 0; i < whole.size(); ++i) ASSERT_TRUE(same_bits(whole[i], split[i])) << i;
    for (int t = 0; t < tokens; ++t) {
      const ActI16 one{act.codes.data() + t * w.cols,
                       act.scales.data() + t * w.groups(),
                       act.sums.data() + t * w.groups(),
                       1,
                       w.cols,
                       w.group};
      set()->matmul_i4(packed, one, alone.data(), 100, 0, 7);
      for (int r = 0; r < 100; ++r)
        ASSERT_TRUE(same_bits(alone[size_t(r)], whole[size_t(t * 100 + r)])) << t << "," << r;
    }
  }
}

// Different sets, same integers: they may differ by the roundings of the float combination only.
TEST_P(MatmulI4Test, AgreesWithPortable) {
  const KernelSet& portable = *compiled().back();
  const Matrix w(64, 576, 64, 15);
  const auto stream = w.stream();
  for (const int tokens : {1, 3, 19}) {
    const auto x = normals(size_t(tokens * 576), 16);
    const Activations act(*set().set, x, tokens, 576, 64), other(portable, x, tokens, 576, 64);
    ASSERT_TRUE(std::equal(act.codes.begin(), act.codes.end(), other.codes.begin()));
    ASSERT_TRUE(std::equal(act.sums.begin(), act.sums.end(), other.sums.begin()));
    ASSERT_TRUE(std::equal(act.scales.begin(), act.scales.end(), other.scales.begin()));
    std::vector<float> y(size_t(tokens * 64)), z(y.size());
    set()->matmul_i4({stream.data(), 64, 576, 64}, act.view(), y.data(), 64, 0, 4);
    portable.matmul_i4({stream.data(), 64, 576, 64}, other.view(), z.data(), 64, 0, 4);
    for (int i = 0; i < tokens * 64; ++i)
      ASSERT_LE(std::abs(y[size_t(i)] - z[size_t(i)]), 2 * expected(w, act, i / 64, i % 64, true).bound) << i;
  }
}

// ---- quantize_i16 ----

// |code - x / scale| <= 1/2 + the division's rounding, at most 32767 u = 2^-9.
void expect_quantized(const std::vector<float>& x, int group, const Activations& q) {
  for (size_t g = 0; g < q.scales.size(); ++g) {
    float top = 0;
    int32_t sum = 0, largest = 0;
    for (size_t i = g * size_t(group); i < (g + 1) * size_t(group); ++i) {
      top = std::max(top, std::abs(x[i]));
      sum += q.codes[i];
      largest = std::max(largest, std::abs(int(q.codes[i])));
      if (q.scales[g] > 0) {
        EXPECT_LE(std::abs(q.codes[i] - double(x[i]) / double(q.scales[g])), 0.5 + 0x1p-9) << i;
      }
    }
    EXPECT_EQ(q.scales[g], top / 32767.f);
    EXPECT_EQ(q.sums[g], sum);
    EXPECT_EQ(largest, top > 0 ? 32767 : 0);
  }
}

TEST_P(MatmulI4Test, QuantizesToTheNearestCode) {
  for (const int group : {8, 24, 64, 128})
    for (const float sigma : {1e-30f, 1.f, 1e30f}) {
      auto x = normals(size_t(group * 6), unsigned(group), sigma);
      std::fill(x.begin() + group, x.begin() + 2 * group, 0.f);
      expect_quantized(x, group, Activations(*set().set, x, 2, 3 * group, group));
    }
}

TEST_P(MatmulI4Test, QuantizesTiesToEven) {
  std::vector<float> x(8);
  const float values[] = {32767, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 0};  // scale 1
  std::copy(std::begin(values), std::end(values), x.begin());
  const Activations q(*set().set, x, 1, 8, 8);
  EXPECT_EQ(std::vector<int>(q.codes.begin(), q.codes.end()), (std::vector<int>{32767, 0, 2, 2, 0, -2, -2, 0}));
}

// Scales that underflow: codes stay in range, and values too small for any scale become 0.
TEST_P(MatmulI4Test, QuantizesSubnormals) {
  for (const float top : {1e-34f, 3e-38f, 1e-40f, 1e-44f}) {
    const std::vector<float> x = {top, -top, top / 2, 0, 0, 0, 0, 0};
    const Activations q(*set().set, x, 1, 8, 8);
    const bool vanishes = q.scales[0] == 0;
    for (size_t i = 0; i < 8; ++i) {
      EXPECT_LE(std::abs(int(q.codes[i])), 32767);
      EXPECT_LE(std::abs(q.codes[i] * double(q.scales[0]) - double(x[i])),
                vanishes ? 0x1p-134 : double(q.scales[0]) / 2 + 0x1p-134)
          << top;
    }
  }
}

TEST_P(MatmulI4Test, NanAndInfinityReachTheResult) {
  const Matrix w(16, 128, 64, 17);
  const auto stream = w.stream();
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()})
    for (const int tokens : {2, 19}) {
      auto x = normals(size_t(tokens * 128), 18);
      x[128 + 70] = bad;
      const Activations q(*set().set, x, tokens, 128, 64);
      std::vector<float> y(size_t(tokens * 16));
      set()->matmul_i4({stream.data(), 16, 128, 64}, q.view(), y.data(), 16, 0, 1);
      for (int i = 0; i < tokens * 16; ++i) EXPECT_EQ(std::isnan(y[size_t(i)]), i / 16 == 1) << i;
    }
}

AWQ_EVERY_SET(MatmulI4Test);

}  // namespace
}  // namespace awq::kernels
