// The plain loops that all sets share: against double precision, and bit for bit between sets.
#include "kernels/generic.h"

#include <bit>
#include <cmath>
#include <limits>

#include "kernels/sets.h"

namespace awq::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

double ulp(double v) {
  int exponent = 0;
  std::frexp(v, &exponent);
  return std::ldexp(1.0, std::max(exponent - 24, -149));
}

// Every 97th float of both signs, about 22 million of those with a finite result.
TEST(Exp, WithinTwoUlp) {
  double worst = 0;
  for (uint64_t bits = 0; bits < 0x100000000; bits += 97) {
    const auto x = std::bit_cast<float>(uint32_t(bits));
    if (!(x > -110.f && x < 88.722f)) continue;
    const double exact = std::exp(double(x));
    worst = std::max(worst, std::abs(double(exp_approx(x)) - exact) / ulp(exact));
  }
  EXPECT_LE(worst, 2);
  EXPECT_GT(worst, 0.5) << "rounding alone gives this much: the comparison is broken";
  RecordProperty("worst_ulp", std::to_string(worst));
}

TEST(Exp, Ends) {
  EXPECT_EQ(exp_approx(0.f), 1.f);
  EXPECT_EQ(exp_approx(-kInf), 0.f);
  EXPECT_EQ(exp_approx(-104.f), 0.f);
  EXPECT_EQ(exp_approx(-1e30f), 0.f);
  EXPECT_EQ(exp_approx(kInf), kInf);
  EXPECT_EQ(exp_approx(88.8f), kInf);
  EXPECT_EQ(exp_approx(3e38f), kInf);
  EXPECT_GT(exp_approx(-103.f), 0.f);  // subnormal
  EXPECT_TRUE(std::isnan(exp_approx(kNan)));
}

class GenericTest : public KernelTest {};

// e^(x - m): the subtraction's rounding counts |x - m| u, the exponential 4 u, the sum n / 16 + 5, the reciprocal and
// the product 1 each; the sum's terms carry the first two as well.
TEST_P(GenericTest, Softmax) {
  for (const int n : {1, 2, 15, 16, 17, 100, 1000}) {
    const int row = n + 3;
    auto x = normals(size_t(4 * row), unsigned(n), 6);
    for (int i = 0; i < n; ++i) x[size_t(2 * row + i)] = i ? -kInf : 2.f;  // a mask that leaves one
    const Guarded<float> y(x);
    set()->softmax(y.data(), row, 4, n);
    for (int r = 0; r < 4; ++r) {
      double m = -kInf, sum = 0;
      for (int i = 0; i < n; ++i) m = std::max(m, double(x[size_t(r * row + i)]));
      for (int i = 0; i < n; ++i) sum += std::exp(double(x[size_t(r * row + i)]) - m);
      for (int i = 0; i < n; ++i) {
        const double d = double(x[size_t(r * row + i)]) - m, exact = std::exp(d) / sum;
        const double roundings = d == -kInf ? 0 : 2 * -d + 8 + n / 16. + 5 + 2;
        EXPECT_LE(std::abs(double(y[size_t(r * row + i)]) - exact), roundings * kU * exact + 0x1p-149)
            << n << ": " << r << "," << i;
      }
      for (int i = n; i < row; ++i) EXPECT_EQ(y[size_t(r * row + i)], x[size_t(r * row + i)]);
    }
  }
}

TEST_P(GenericTest, SoftmaxShowsNan) {
  std::vector<float> x = normals(40, 1);
  x[21] = kNan;
  set()->softmax(x.data(), 40, 1, 40);
  for (const float v : x) EXPECT_TRUE(std::isnan(v));
}

// Terms within 4 u, shifted by |x - m| u as above but weighted by their share p: errors add to the logarithm directly.
TEST_P(GenericTest, LogSumExp) {
  for (const int n : {1, 7, 16, 33, 1000, 49152})
    for (const float sigma : {0.1f, 3.f, 40.f}) {
      const Guarded<float> x(normals(size_t(n), unsigned(n), sigma));
      double m = -kInf, sum = 0, shift = 0;
      for (const float v : x) m = std::max(m, double(v));
      for (const float v : x) sum += std::exp(double(v) - m), shift += std::exp(double(v) - m) * (m - double(v));
      const double exact = m + std::log(sum), error = std::abs(set()->log_sum_exp(x.data(), n) - exact);
      EXPECT_LE(error, (4 + shift / sum) * kU) << n << " " << sigma;
      if (n == 49152) {
        EXPECT_LE(error, 1e-7 * std::max(1.0, std::abs(exact))) << sigma;
      }
    }
  const float large[] = {1e30f, 1e30f};
  EXPECT_NEAR(set()->log_sum_exp(large, 2), double(1e30f), 1e15);
}

std::vector<float> gates() {
  auto g = normals(3001, 3, 8);
  const float special[] = {0, -0.f, 1e-30f, -1e-30f, 50, -50, 87, -87, 300, 1e30f};
  std::copy(std::begin(special), std::end(special), g.begin());
  return g;
}

// e^-g 4 u, sum 1, quotient 1, product 1. Below -87 the denominator overflows and 0 stands for less than 1e-35.
TEST_P(GenericTest, SiluMul) {
  const Guarded<float> g(gates()), u(normals(3001, 4));
  const Guarded<float> y(g.size());
  set()->silu_mul(g.data(), u.data(), y.data(), int64_t(g.size()));
  for (size_t i = 0; i < g.size(); ++i) {
    const double exact = double(g[i]) / (1 + std::exp(-double(g[i]))) * double(u[i]);
    ASSERT_LE(std::abs(double(y[i]) - exact), 7 * kU * std::abs(exact) + 1e-35) << g[i];
  }
  set()->silu_mul(g.data(), u.data(), g.data(), int64_t(g.size()));
  for (size_t i = 0; i < g.size(); ++i) EXPECT_TRUE(same_bits(g[i], y[i]));
}

TEST_P(GenericTest, SigmoidMul) {
  const Guarded<float> g(gates()), u(normals(3001, 4));
  const Guarded<float> y(g.size());
  set()->sigmoid_mul(g.data(), u.data(), y.data(), int64_t(g.size()));
  for (size_t i = 0; i < g.size(); ++i) {
    const double exact = 1 / (1 + std::exp(-double(g[i]))) * double(u[i]);
    ASSERT_LE(std::abs(double(y[i]) - exact), 7 * kU * std::abs(exact) + 1e-35) << g[i];
  }
  set()->sigmoid_mul(g.data(), u.data(), u.data(), int64_t(g.size()));
  for (size_t i = 0; i < g.size(); ++i) EXPECT_TRUE(same_bits(u[i], y[i]));
}

// As silu, and the exponent z has 6 roundings (3 products of x, the sum, two constants), each of which counts |z| u.
TEST_P(GenericTest, GeluTanhMul) {
  auto values = gates();
  for (float& v : values) v = std::clamp(v, -30.f, 1e6f);
  const Guarded<float> g(values), u(normals(3001, 5));
  const Guarded<float> y(g.size());
  set()->gelu_tanh_mul(g.data(), u.data(), y.data(), int64_t(g.size()));
  for (size_t i = 0; i < g.size(); ++i) {
    const double x = double(g[i]), z = std::sqrt(8 / M_PI) * (x + 0.044715 * x * x * x),
                 exact = x / (1 + std::exp(-z)) * double(u[i]);
    ASSERT_LE(std::abs(double(y[i]) - exact), (7 + 6 * (z < 0 ? -z : z * std::exp(-z))) * kU * std::abs(exact) + 1e-35)
        << g[i];
    if (std::abs(x) < 5) {
      ASSERT_NEAR(exact, 0.5 * x * (1 + std::tanh(z / 2)) * double(u[i]), 1e-12);  // the textbook form
    }
  }
}

// 1.5e-7 |x| by the approximation of erfc, and a handful of roundings.
TEST_P(GenericTest, GeluMul) {
  const Guarded<float> g(gates()), u(normals(3001, 5));
  const Guarded<float> y(g.size());
  set()->gelu_mul(g.data(), u.data(), y.data(), int64_t(g.size()));
  for (size_t i = 0; i < g.size(); ++i) {
    const double x = double(g[i]), exact = 0.5 * x * std::erfc(-x / M_SQRT2) * double(u[i]);
    ASSERT_LE(std::abs(double(y[i]) - exact), (1.5e-7 + 5 * kU) * std::abs(x * double(u[i])) + 1e-35) << x;
  }
}

TEST_P(GenericTest, ReluAndItsSquare) {
  const Guarded<float> g(gates()), u(normals(3001, 5));
  const Guarded<float> y(g.size()), y2(g.size());
  set()->relu_mul(g.data(), u.data(), y.data(), int64_t(g.size()));
  set()->relu2_mul(g.data(), u.data(), y2.data(), int64_t(g.size()));
  for (size_t i = 0; i < g.size(); ++i) {
    const float r = std::max(g[i], 0.f);
    EXPECT_EQ(y[i], r * u[i]);
    EXPECT_EQ(y2[i], r * r * u[i]);
  }
  float nan[] = {kNan};
  set()->relu_mul(nan, nullptr, nan, 1);
  EXPECT_TRUE(std::isnan(nan[0]));
}

TEST_P(GenericTest, ActivationsWithoutAProduct) {
  const Guarded<float> g(gates()), ones(std::vector<float>(3001, 1.f));
  const Guarded<float> y(g.size()), alone(g.size());
  for (const auto f : {set()->silu_mul, set()->sigmoid_mul, set()->gelu_tanh_mul, set()->gelu_mul, set()->relu_mul,
                       set()->relu2_mul}) {
    f(g.data(), ones.data(), y.data(), int64_t(g.size()));
    f(g.data(), nullptr, alone.data(), int64_t(g.size()));
    for (size_t i = 0; i < g.size(); ++i) EXPECT_TRUE(same_bits(y[i], alone[i]));
  }
}

// As rms_norm, and x less the mean rounds once, the bias once.
TEST_P(GenericTest, LayerNorm) {
  for (const int dim : {1, 5, 16, 33, 64, 1000}) {
    const int tokens = 3;
    auto values = normals(size_t(tokens * dim), unsigned(dim), 5);
    for (float& v : values) v += 100;  // a mean that would cancel in float
    const Guarded<float> x(values), gain(normals(size_t(dim), 6)), bias(normals(size_t(dim), 7));
    const Guarded<float> y(x.size());
    set()->layer_norm(x.data(), gain.data(), bias.data(), 1, 1e-5f, tokens, dim, y.data());
    for (int t = 0; t < tokens; ++t) {
      double mean = 0, variance = 0;
      for (int i = 0; i < dim; ++i) mean += double(x[size_t(t * dim + i)]) / dim;
      for (int i = 0; i < dim; ++i) variance += std::pow(double(x[size_t(t * dim + i)]) - mean, 2) / dim;
      for (int i = 0; i < dim; ++i) {
        const double product = (double(x[size_t(t * dim + i)]) - mean) / std::sqrt(variance + double(1e-5f)) *
                               (double(gain[size_t(i)]) + 1);
        const double exact = product + double(bias[size_t(i)]);
        ASSERT_LE(std::abs(double(y[size_t(t * dim + i)]) - exact),
                  5.001 * kU * std::abs(product) + kU * std::abs(exact) + 1e-12)
            << dim << ": " << t << "," << i;
      }
    }
    set()->layer_norm(x.data(), gain.data(), bias.data(), 1, 1e-5f, tokens, dim, x.data());
    for (size_t i = 0; i < x.size(); ++i) ASSERT_TRUE(same_bits(x[i], y[i]));
  }
}

// Sum of squares in double; the factor, the product with x, gain + offset and the last product round once each.
TEST_P(GenericTest, RmsNorm) {
  for (const int dim : {1, 5, 16, 33, 64, 576, 1000, 4096}) {
    const int tokens = 3;
    const Guarded<float> x(normals(size_t(tokens * dim), unsigned(dim), 5)), gain(normals(size_t(dim), 6));
    const Guarded<float> y(x.size());
    for (const float offset : {0.f, 1.f}) {
      set()->rms_norm(x.data(), gain.data(), offset, 1e-5f, tokens, dim, y.data());
      for (int t = 0; t < tokens; ++t) {
        double sum = 0;
        for (int i = 0; i < dim; ++i) sum += double(x[size_t(t * dim + i)]) * double(x[size_t(t * dim + i)]);
        for (int i = 0; i < dim; ++i) {
          const double exact = double(x[size_t(t * dim + i)]) / std::sqrt(sum / dim + double(1e-5f)) *
                               (double(gain[size_t(i)]) + double(offset));
          ASSERT_LE(std::abs(double(y[size_t(t * dim + i)]) - exact), 4.001 * kU * std::abs(exact) + 0x1p-149)
              << dim << ": " << t << "," << i;
        }
      }
    }
    set()->rms_norm(x.data(), gain.data(), 1, 1e-5f, tokens, dim, x.data());
    for (size_t i = 0; i < x.size(); ++i) ASSERT_TRUE(same_bits(x[i], y[i]));
  }
}

TEST_P(GenericTest, RmsNormDoesNotOverflowOrHideNan) {
  std::vector<float> x(32, 3e30f), gain(32, 1.f), y(32);
  set()->rms_norm(x.data(), gain.data(), 0, 1e-6f, 1, 32, y.data());
  for (const float v : y) EXPECT_NEAR(v, 1, 1e-6);
  x[3] = kNan;
  set()->rms_norm(x.data(), gain.data(), 0, 1e-6f, 1, 32, y.data());
  for (const float v : y) EXPECT_TRUE(std::isnan(v));
  x[3] = kInf;
  set()->rms_norm(x.data(), gain.data(), 0, 1e-6f, 1, 32, y.data());
  EXPECT_TRUE(std::isnan(y[3]));
}

TEST_P(GenericTest, Add) {
  const auto x = normals(1003, 7), y0 = normals(1003, 8);
  for (const float scale : {1.f, 0.22f}) {
    const Guarded<float> in(x), y(y0);
    set()->add(in.data(), scale, y.data(), 1003);
    for (size_t i = 0; i < 1003; ++i) {
      const float product = scale * x[i];
      EXPECT_EQ(y[i], y0[i] + product);
    }
  }
}

// Two products and a sum: 2 u of the terms' magnitudes, to first order.
TEST_P(GenericTest, Rope) {
  for (const auto& [head_dim, dims] : {std::pair(64, 64), {64, 32}, {10, 6}, {128, 128}}) {
    const int heads = 3, half = dims / 2;
    const auto x = normals(size_t(heads * head_dim), 9), cosines = normals(size_t(half), 10),
               sines = normals(size_t(half), 11);
    const Guarded<float> y(x), c(cosines), s(sines);
    set()->rope(y.data(), c.data(), s.data(), heads, head_dim, dims, false);
    for (int i = 0; i < heads * head_dim; ++i) {
      const int d = i % head_dim, j = d % half;
      if (d >= dims) {
        EXPECT_EQ(y[size_t(i)], x[size_t(i)]);
        continue;
      }
      const int other = d < half ? i + half : i - half;
      const double own = double(x[size_t(i)]) * double(cosines[size_t(j)]),
                   cross = double(x[size_t(other)]) * double(sines[size_t(j)]);
      const double exact = d < half ? own - cross : own + cross;
      EXPECT_LE(std::abs(double(y[size_t(i)]) - exact), 2.001 * kU * (std::abs(own) + std::abs(cross)))
          << head_dim << ": " << i;
    }
  }
}

// The same numbers in another order.
TEST_P(GenericTest, InterleavedRope) {
  const int heads = 3, head_dim = 20, dims = 12, half = dims / 2;
  const auto x = normals(size_t(heads * head_dim), 9), cosines = normals(size_t(half), 10),
             sines = normals(size_t(half), 11);
  const auto place = [&](int i) {  // of channel i of the halves
    const int d = i % head_dim;
    return d >= dims ? i : i - d + (d < half ? 2 * d : 2 * (d - half) + 1);
  };
  std::vector<float> halves(x.size());
  for (int i = 0; i < heads * head_dim; ++i) halves[size_t(i)] = x[size_t(place(i))];
  const Guarded<float> y(x), z(halves), c(cosines), s(sines);
  set()->rope(y.data(), c.data(), s.data(), heads, head_dim, dims, true);
  set()->rope(z.data(), c.data(), s.data(), heads, head_dim, dims, false);
  for (int i = 0; i < heads * head_dim; ++i) EXPECT_TRUE(same_bits(y[size_t(place(i))], z[size_t(i)])) << i;
}

// No set may round differently: lanes are fixed and a*b+c is not contracted.
TEST_P(GenericTest, SameBitsAsPortable) {
  const KernelSet& portable = *compiled().back();
  const auto x = normals(1003, 12, 5), u = normals(1003, 13);
  std::vector<float> a(1003), b(1003);
  const auto expect_same = [&](const char* what) {
    for (size_t i = 0; i < a.size(); ++i) ASSERT_TRUE(same_bits(a[i], b[i])) << what << " " << i;
  };
  set()->silu_mul(x.data(), u.data(), a.data(), 1003), portable.silu_mul(x.data(), u.data(), b.data(), 1003),
      expect_same("silu");
  set()->sigmoid_mul(x.data(), u.data(), a.data(), 1003), portable.sigmoid_mul(x.data(), u.data(), b.data(), 1003),
      expect_same("sigmoid");
  set()->gelu_tanh_mul(x.data(), u.data(), a.data(), 1003), portable.gelu_tanh_mul(x.data(), u.data(), b.data(), 1003),
      expect_same("gelu");
  set()->gelu_mul(x.data(), u.data(), a.data(), 1003), portable.gelu_mul(x.data(), u.data(), b.data(), 1003),
      expect_same("gelu by erf");
  set()->layer_norm(x.data(), u.data(), u.data() + 500, 1, 1e-6f, 17, 59, a.data()),
      portable.layer_norm(x.data(), u.data(), u.data() + 500, 1, 1e-6f, 17, 59, b.data()), expect_same("layer norm");
  set()->rms_norm(x.data(), u.data(), 1, 1e-6f, 17, 59, a.data()),
      portable.rms_norm(x.data(), u.data(), 1, 1e-6f, 17, 59, b.data()), expect_same("norm");
  a = b = x;
  set()->softmax(a.data(), 59, 17, 59), portable.softmax(b.data(), 59, 17, 59), expect_same("softmax");
  set()->rope(a.data(), u.data(), u.data() + 500, 10, 100, 64, false),
      portable.rope(b.data(), u.data(), u.data() + 500, 10, 100, 64, false), expect_same("rope");
  EXPECT_EQ(set()->log_sum_exp(x.data(), 1003), portable.log_sum_exp(x.data(), 1003));
}

AWQ_EVERY_SET(GenericTest);

}  // namespace
}  // namespace awq::kernels
