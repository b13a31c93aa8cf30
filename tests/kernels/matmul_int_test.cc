#include <bit>
#include <cmath>
#include <limits>

#include "base/numeric.h"
#include "kernels/int_matrix.h"
#include "kernels/sets.h"

namespace awq::kernels {
namespace {

// The contract's entries by type of the codes.
void quantize(const KernelSet& set, const float* x, const ActI16& to) { set.quantize_i16(x, to, 0, to.tokens); }
void quantize(const KernelSet& set, const float* x, const ActI8& to) { set.quantize_i8(x, to, 0, to.tokens); }
void matmul(const KernelSet& set, const PackedInt& w, const ActI16& x, float* y, ptrdiff_t y_row, int b, int e) {
  set.matmul_i16(w, x, y, y_row, b, e);
}
void matmul(const KernelSet& set, const PackedInt& w, const ActI8& x, float* y, ptrdiff_t y_row, int b, int e) {
  set.matmul_i8(w, x, y, y_row, b, e);
}

/// f(code, bits) for what a product can be made of.
template <class F>
void every_kind(const F& f) {
  f(int16_t(), 4);
  f(int16_t(), 8);
  f(int8_t(), 4);
}
template <class Code>
constexpr int kTop = sizeof(Code) == 1 ? 127 : 32767;

/// Where sets without tiles put column c: of 8 bits, the middle two of each four change places.
template <class Code>
int place(int c) {
  static constexpr int kOrder[] = {0, 2, 1, 3};
  return sizeof(Code) == 1 ? (c & ~3) + kOrder[c & 3] : c;
}

template <class Code>
struct Activations {
  int tokens, cols, group;
  Guarded<Code> codes;
  Guarded<float> scales;
  Guarded<int32_t> sums;

  Activations(const KernelSet& set, const std::vector<float>& x, int t, int c, int g)
      : tokens(t),
        cols(c),
        group(g),
        codes(room(set, t) * size_t(c)),
        scales(room(set, t) * size_t(c / g)),
        sums(scales.size()) {
    const Guarded<float> exact_size(x);
    quantize(set, exact_size.data(), view());
  }
  static size_t room(const KernelSet& set, int t) {
    return size_t((t + set.token_block - 1) / set.token_block * set.token_block);
  }
  int code(int t, int c) const { return codes[size_t(t * cols + place<Code>(c))]; }
  ActInt<Code> view() const { return {codes.data(), scales.data(), sums.data(), tokens, cols, group}; }
};

template <class Code>
int64_t integer_dot(const Matrix& w, const Activations<Code>& x, int t, int r, int g) {
  const uint8_t* codes = &w.codes[size_t(r * w.cols)];
  const Code* in = x.codes.data() + t * w.cols;
  const int zero = w.zeros[size_t(r * w.groups() + g)];
  int64_t d = 0;  // plain pointers: these products are most of what a build without optimization does here
  for (int c = g * w.group; c < (g + 1) * w.group; ++c) d += (codes[c] - zero) * int64_t(in[place<Code>(c)]);
  return d;
}

/// The contract in float, and in double with the bound between them. Integer sums are exact. Each group then rounds
/// ws * xs, float(d), the product (0 times with fma) and the addition: with G groups every term passes at most G + 3
/// roundings of u = 2^-24, so |float - real| <= (G + 3) u sum |ws xs d|, and two sets differ by at most twice that.
struct Expected {
  float chain = 0;
  double real = 0, bound = 0;
};
template <class Code>
Expected expected(const Matrix& w, const Activations<Code>& x, int t, int r, bool fused) {
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

const KernelSet& portable() { return *compiled().back(); }

class MatmulIntTest : public KernelTest {
 protected:
  template <class Code>
  void check(const Matrix& w, const std::vector<float>& x, int tokens) {
    SCOPED_TRACE(testing::Message() << w.bits << " bits x " << 8 * sizeof(Code) << " rows " << w.rows << " cols "
                                    << w.cols << " group " << w.group << " tokens " << tokens);
    const Activations<Code> act(*set().set, x, tokens, w.cols, w.group), plain(portable(), x, tokens, w.cols, w.group);
    const Guarded<uint8_t> stream(w.stream());
    const int y_row = w.rows + 3;
    const Guarded<float> y(size_t(tokens > 0 ? (tokens - 1) * y_row + w.rows : 0), -77.f);
    matmul(*set().set, w.view(stream.data()), act.view(), y.data(), y_row, 0, w.panels());
    for (size_t i = 0; i < y.size(); ++i) {
      const int t = int(i) / y_row, r = int(i) % y_row;
      if (r >= w.rows) {
        ASSERT_EQ(y[i], -77.f) << "written past rows at " << t << "," << r;
        continue;
      }
      const Expected e = expected(w, plain, t, r, set().fused());
      ASSERT_TRUE(same_bits(y[i], e.chain)) << t << "," << r << ": " << y[i] << " " << e.chain;
      ASSERT_LE(std::abs(double(y[i]) - e.real), e.bound) << t << "," << r;
    }
  }
};

TEST_P(MatmulIntTest, EveryNumberOfTokens) {
  every_kind([&]<class Code>(Code, int bits) {
    const Matrix w(50, 192, 64, 1, bits);
    for (int tokens = 0; tokens <= 34; ++tokens) check<Code>(w, normals(size_t(tokens * w.cols), 2), tokens);
  });
}

TEST_P(MatmulIntTest, EveryGroupSize) {
  every_kind([&]<class Code>(Code, int bits) {
    for (int group = 8; group <= kMaxActGroup; group += 8)
      for (const int tokens : {1, 3, 19}) {
        const Matrix w(33, 3 * group, group, unsigned(group / 8), bits);
        check<Code>(w, normals(size_t(tokens * w.cols), 3), tokens);
      }
  });
}

TEST_P(MatmulIntTest, LongRowsAndManyTokens) {
  every_kind([&]<class Code>(Code, int bits) {
    for (const int group : {32, 64, 128, 120}) {
      const Matrix w(31, 1536 / group * group, group, unsigned(group), bits);
      for (const int tokens : {1, 72, 73, 80}) check<Code>(w, normals(size_t(tokens * w.cols), 4), tokens);
    }
    // More than any set's block of tokens (256) and two of its blocks of columns.
    check<Code>(Matrix(31, 512, 64, 2, bits), normals(300 * 512, 4), 300);
  });
}

TEST_P(MatmulIntTest, EveryNumberOfRows) {
  every_kind([&]<class Code>(Code, int bits) {
    for (int rows = 1; rows <= 49; ++rows)
      for (const int tokens : {1, 2, 3, 4, 19})
        check<Code>(Matrix(rows, 64, 32, unsigned(rows), bits), normals(size_t(tokens * 64), 5), tokens);
  });
}

// 128 * 255 * 32767 and zero points that double its parts: no sum may leave 31 bits. Codes are all equal so that
// nothing cancels.
TEST_P(MatmulIntTest, LargestSums) {
  every_kind([&]<class Code>(Code, int bits) {
    const int top = (1 << bits) - 1;
    for (const int code : {0, top})
      for (const int zero : {0, top})
        for (const float sign : {1.f, -1.f})
          for (const int tokens : {1, 2, 4, 19}) {
            Matrix w(18, 256, kMaxActGroup, 1, bits);
            std::fill(w.codes.begin(), w.codes.end(), uint8_t(code));
            std::fill(w.zeros.begin(), w.zeros.end(), uint8_t(zero));
            check<Code>(w, std::vector<float>(size_t(tokens * 256), sign * 3.5f), tokens);
          }
  });
}

TEST_P(MatmulIntTest, ZerosAndOutliers) {
  every_kind([&]<class Code>(Code, int bits) {
    const Matrix w(20, 256, 128, 7, bits);
    for (const int tokens : {1, 4, 22}) {
      check<Code>(w, std::vector<float>(size_t(tokens * 256), 0.f), tokens);
      auto x = normals(size_t(tokens * 256), 6);
      for (int t = 0; t < tokens; ++t) x[size_t(t * 256 + 17)] = 3e6f;
      check<Code>(w, x, tokens);
    }
  });
}

// What integer activations cost against the same weights times the floats themselves: half a step for each value.
TEST_P(MatmulIntTest, CloseToTheFloatProduct) {
  every_kind([&]<class Code>(Code, int bits) {
    const Matrix w(40, 512, 64, 11, bits);
    const auto x = normals(512, 12);
    const Activations<Code> act(*set().set, x, 1, 512, 64);
    const auto stream = w.stream();
    std::vector<float> y(40);
    matmul(*set().set, w.view(stream.data()), act.view(), y.data(), 40, 0, 3);
    for (int r = 0; r < 40; ++r) {
      double exact = 0, step = 0;
      for (int c = 0; c < 512; ++c) {
        const size_t g = size_t(r * 8 + c / 64);
        const double weight = (w.codes[size_t(r * 512 + c)] - w.zeros[g]) * double(w.scales[g]);
        exact += weight * double(x[size_t(c)]);
        step += std::abs(weight) * double(act.scales[size_t(c / 64)]) / 2;
      }
      EXPECT_LE(std::abs(double(y[size_t(r)]) - exact), 1.002 * step + expected(w, act, 0, r, true).bound);
    }
  });
}

TEST_P(MatmulIntTest, PanelsAndTokensDoNotDependOnTheSplit) {
  every_kind([&]<class Code>(Code, int bits) {
    const Matrix w(100, 320, 64, 13, bits);
    const auto stream = w.stream();
    for (const int tokens : {4, 9, 19, 40}) {
      const auto x = normals(size_t(tokens * w.cols), 14);
      const Activations<Code> act(*set().set, x, tokens, w.cols, w.group);
      std::vector<float> whole(size_t(tokens * 100)), split(whole.size()), alone(100);
      matmul(*set().set, w.view(stream.data()), act.view(), whole.data(), 100, 0, 7);
      for (const auto& [b, e] : {std::pair(0, 1), {1, 4}, {4, 4}, {4, 7}})
        matmul(*set().set, w.view(stream.data()), act.view(), split.data(), 100, b, e);
      for (size_t i = 0; i < whole.size(); ++i) ASSERT_TRUE(same_bits(whole[i], split[i])) << i;
      for (int t = 0; t < tokens; ++t) {
        const Activations<Code> one(*set().set, {x.begin() + t * w.cols, x.begin() + (t + 1) * w.cols}, 1, w.cols,
                                    w.group);
        matmul(*set().set, w.view(stream.data()), one.view(), alone.data(), 100, 0, 7);
        for (int r = 0; r < 100; ++r)
          ASSERT_TRUE(same_bits(alone[size_t(r)], whole[size_t(t * 100 + r)])) << t << "," << r;
      }
    }
  });
}

// Different sets, same integers: they may differ by the roundings of the float combination only.
TEST_P(MatmulIntTest, AgreesWithPortable) {
  every_kind([&]<class Code>(Code, int bits) {
    const Matrix w(64, 576, 64, 15, bits);
    const auto stream = w.stream();
    for (const int tokens : {1, 3, 19}) {
      const auto x = normals(size_t(tokens * 576), 16);
      const Activations<Code> act(*set().set, x, tokens, 576, 64), other(portable(), x, tokens, 576, 64);
      for (int i = 0; i < 3 * 576 && tokens <= 3; ++i)
        ASSERT_EQ(act.codes[size_t(i % (tokens * 576))], other.codes[size_t(i % (tokens * 576))]);
      for (size_t i = 0; i < size_t(tokens * 9) && tokens <= 3; ++i) {
        ASSERT_EQ(act.sums[i], other.sums[i]);
        ASSERT_EQ(act.scales[i], other.scales[i]);
      }
      std::vector<float> y(size_t(tokens * 64)), z(y.size());
      matmul(*set().set, w.view(stream.data()), act.view(), y.data(), 64, 0, 4);
      matmul(portable(), w.view(stream.data()), other.view(), z.data(), 64, 0, 4);
      for (int i = 0; i < tokens * 64; ++i)
        ASSERT_LE(std::abs(y[size_t(i)] - z[size_t(i)]), 2 * expected(w, other, i / 64, i % 64, true).bound) << i;
    }
  });
}

// ---- quantize ----

// |code - x / scale| <= 1/2 + three roundings of a quotient up to 32767: 3 * 32767 u < 2^-7.
template <class Code>
void expect_quantized(const std::vector<float>& x, int group, const Activations<Code>& q) {
  for (size_t g = 0; g < x.size() / size_t(group); ++g) {
    float top = 0;
    int32_t sum = 0, largest = 0;
    for (int i = int(g) * group; i < (int(g) + 1) * group; ++i) {
      const int code = q.code(0, i);
      top = std::max(top, std::abs(x[size_t(i)]));
      sum += code;
      largest = std::max(largest, std::abs(code));
      if (q.scales[g] > 0) {
        EXPECT_LE(std::abs(code - double(x[size_t(i)]) / double(q.scales[g])), 0.5 + 0x1p-7) << i;
      }
    }
    EXPECT_EQ(q.scales[g], top / float(kTop<Code>));
    EXPECT_EQ(q.sums[g], sum);
    EXPECT_EQ(largest, top > 0 ? kTop<Code> : 0);
  }
}

TEST_P(MatmulIntTest, QuantizesToTheNearestCode) {
  every_kind([&]<class Code>(Code, int) {
    for (const int group : {8, 24, 64, 128})
      for (const float sigma : {1e-30f, 1.f, 1e30f}) {
        auto x = normals(size_t(group * 6), unsigned(group), sigma);
        std::fill(x.begin() + group, x.begin() + 2 * group, 0.f);
        expect_quantized(x, group, Activations<Code>(*set().set, x, 2, 3 * group, group));
      }
  });
}

TEST_P(MatmulIntTest, QuantizesTiesToEven) {
  every_kind([&]<class Code>(Code, int) {
    const float top = kTop<Code>;  // so that the scale is 1
    const std::vector<float> x = {top, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 0};
    const Activations<Code> q(*set().set, x, 1, 8, 8);
    const int expected[] = {kTop<Code>, 0, 2, 2, 0, -2, -2, 0};
    for (int i = 0; i < 8; ++i) EXPECT_EQ(q.code(0, i), expected[i]) << i;
  });
}

// Where the factor would be infinite all codes and the scale are 0; above that the scale may be subnormal.
TEST_P(MatmulIntTest, QuantizesTinyValues) {
  every_kind([&]<class Code>(Code, int) {
    for (const float top : {1e-33f, 1e-35f, 3e-38f, 1e-40f, 1e-44f}) {
      const std::vector<float> x = {top, -top, top / 2, 0, 0, 0, 0, 0};
      const Activations<Code> q(*set().set, x, 1, 8, 8);
      const bool vanishes = q.scales[0] == 0;
      EXPECT_EQ(vanishes, top < float(kTop<Code>) / std::numeric_limits<float>::max()) << top;
      for (int i = 0; i < 8; ++i)
        EXPECT_LE(std::abs(q.code(0, i) * double(q.scales[0]) - double(x[size_t(i)])),
                  vanishes ? 0x1p-112 : (0.5 + 0x1p-7) * double(q.scales[0]) + kTop<Code> * 0x1p-149)
            << top;
    }
  });
}

TEST_P(MatmulIntTest, NanAndInfinityReachTheResult) {
  every_kind([&]<class Code>(Code, int bits) {
    const Matrix w(16, 128, 64, 17, bits);
    const auto stream = w.stream();
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity()})
      for (const int tokens : {2, 19}) {
        auto x = normals(size_t(tokens * 128), 18);
        x[128 + 70] = bad;
        const Activations<Code> q(*set().set, x, tokens, 128, 64);
        std::vector<float> y(size_t(tokens * 16));
        matmul(*set().set, w.view(stream.data()), q.view(), y.data(), 16, 0, 1);
        for (int i = 0; i < tokens * 16; ++i) EXPECT_EQ(std::isnan(y[size_t(i)]), i / 16 == 1) << i;
      }
  });
}

AWQ_EVERY_SET(MatmulIntTest);

}  // namespace
}  // namespace awq::kernels
