#include <cmath>
#include <limits>

#include "base/numeric.h"
#include "kernels/sets.h"
#include "sanitized.h"

namespace awq::kernels {
namespace {

enum class Type { f32, bf16, f16 };

/// One product: operands with exactly the elements the contract allows reading, and the float values of b.
class Product {
 public:
  Product(Type type, int m, int n, int k, bool panels, bool accumulate, unsigned seed)
      : m_(m),
        n_(n),
        k_(k),
        panels_(panels),
        accumulate_(accumulate),
        type_(type),
        a_row_(k + 3),
        c_row_(n + 5),
        a_(size_t(m ? (m - 1) * a_row_ + k : 0)),
        b_(size_t(panels ? padded() * k : (k ? (k - 1) * n + padded() : 0))),
        b32_(type == Type::f32 ? b_.size() : 0),
        b16_(type == Type::f32 ? 0 : b_.size()),
        c0_(normals(size_t(m * c_row_), seed + 2, 3)) {
    const auto av = normals(a_.size(), seed), bv = normals(b_.size(), seed + 1);
    std::copy(av.begin(), av.end(), a_.begin());
    for (size_t i = 0; i < b_.size(); ++i) set_b(i, bv[i]);
  }

  Gemm operands(float* c) const {
    const void* b = type_ == Type::f32 ? static_cast<const void*>(b32_.data()) : b16_.data();
    return {.a = a_.data(),
            .a_row = a_row_,
            .b = b,
            .b_panel = panels_ ? kPanel * k_ : kPanel,
            .b_k = panels_ ? kPanel : n_,
            .c = c,
            .c_row = c_row_,
            .m = m_,
            .n = n_,
            .k = k_,
            .accumulate = accumulate_};
  }
  std::vector<float> run(const KernelSet& set) const {
    const Guarded<float> c(c0_);
    const Gemm g = operands(c.data());
    (type_ == Type::f32 ? set.gemm_f32 : type_ == Type::bf16 ? set.gemm_bf16 : set.gemm_f16)(g);
    return {c.begin(), c.end()};
  }

  float a(int i, int k) const { return a_[size_t(i * a_row_ + k)]; }
  float b(int k, int j) const { return b_[index(k, j)]; }
  float start(int i, int j) const { return accumulate_ ? c0_[size_t(i * c_row_ + j)] : 0.f; }
  size_t at(int i, int j) const { return size_t(i * c_row_ + j); }
  float before(size_t i) const { return c0_[i]; }
  void put_a(int i, int k, float v) { a_[size_t(i * a_row_ + k)] = v; }
  void put_b(int k, int j, float v) { set_b(index(k, j), v); }
  int m() const { return m_; }
  int n() const { return n_; }
  int k() const { return k_; }

  /// The contract as arithmetic: one chain in the order of k, fused or with the product rounded first.
  float chain(int i, int j, bool fused) const {
    float s = start(i, j);
    for (int k = 0; k < k_; ++k) s = fused ? std::fma(a(i, k), b(k, j), s) : s + a(i, k) * b(k, j);
    return s;
  }

 private:
  int padded() const { return (n_ + kPanel - 1) / kPanel * kPanel; }
  size_t index(int k, int j) const {
    return size_t(panels_ ? j / kPanel * kPanel * k_ + k * kPanel + j % kPanel : k * n_ + j);
  }
  void set_b(size_t i, float v) {
    if (type_ == Type::f32)
      b32_[i] = v;
    else
      b16_[i] = type_ == Type::bf16 ? f32_to_bf16(v) : f32_to_f16(v);
    b_[i] = type_ == Type::f32 ? v : type_ == Type::bf16 ? bf16_to_f32(b16_[i]) : f16_to_f32(b16_[i]);
  }
  int m_, n_, k_;
  bool panels_, accumulate_;
  Type type_;
  int a_row_, c_row_;
  Guarded<float> a_;
  std::vector<float> b_;
  Guarded<float> b32_;
  Guarded<uint16_t> b16_;
  std::vector<float> c0_;
};

// Against double precision, in which the products of floats are exact. Each of k additions rounds once (and without fma
// each product too), by at most u = 2^-24 of its result:
//   worst case  |error| <= (k + 1) u (|c0| + sum |a||b|)                       (Higham, Accuracy and Stability, 3.1)
//   typical     roundings are independent and at most uniform in +-u|s_i|, and s_i is a random walk of i steps of
//               rms p after c0: rms error <= u sqrt(sum of (p^2 i + c0^2) / 3, + k p^2 / 3 for rounded products).
// The typical bound may be passed by 1.5 (a sample of >= 300 has a spread of a few per cent); results that stay below a
// tenth of it would show that the bound means nothing.
void expect_accurate(const Product& p, const std::vector<float>& c) {
  double sum_error = 0, sum_bound = 0;
  for (int i = 0; i < p.m(); ++i)
    for (int j = 0; j < p.n(); ++j) {
      double exact = p.start(i, j), magnitude = std::abs(exact);
      for (int k = 0; k < p.k(); ++k) {
        exact += double(p.a(i, k)) * double(p.b(k, j));
        magnitude += std::abs(double(p.a(i, k)) * double(p.b(k, j)));
      }
      const double error = double(c[p.at(i, j)]) - exact;
      ASSERT_LE(std::abs(error), (p.k() + 1) * kU * magnitude) << i << "," << j;
      const double k = p.k(), c0 = p.start(i, j);
      sum_error += error * error;
      sum_bound += kU * kU / 3 * (k * (k + 1) / 2 + k + k * c0 * c0);  // a and b have unit variance: p = 1
    }
  if (p.m() * p.n() < 300 || p.k() < 7) return;
  EXPECT_LE(sum_error, 1.5 * 1.5 * sum_bound);
  EXPECT_GE(sum_error, 0.1 * 0.1 * sum_bound);
}

void expect_exact_chain(const NamedSet& set, const Product& p, const std::vector<float>& c) {
  for (int i = 0; i < p.m(); ++i)
    for (int j = 0; j < p.n(); ++j)
      ASSERT_TRUE(same_bits(c[p.at(i, j)], p.chain(i, j, set.fused())))
          << i << "," << j << ": " << c[p.at(i, j)] << " " << p.chain(i, j, set.fused());
}

void expect_gaps_untouched(const Product& p, const std::vector<float>& c) {
  for (size_t i = 0; i < c.size(); ++i)
    if (int(i) % (p.n() + 5) >= p.n()) {
      ASSERT_EQ(c[i], p.before(i)) << "written past n at " << i;
    }
}

class GemmTest : public KernelTest {
 protected:
  void check(Type type, int m, int n, int k, bool panels, bool accumulate) {
    SCOPED_TRACE(testing::Message() << "m " << m << " n " << n << " k " << k << " panels " << panels << " accumulate "
                                    << accumulate << " type " << int(type));
    const Product p(type, m, n, k, panels, accumulate, unsigned(m * 31 + n * 7 + k));
    const auto c = p.run(*set().set);
    expect_accurate(p, c);
    expect_exact_chain(set(), p, c);
    expect_gaps_untouched(p, c);
  }
};

TEST_P(GemmTest, EveryNumberOfTokens) {
  for (int m = 0; m <= 32; ++m)
    for (const int n : {16, 70})
      for (const int k : {7, 64})
        for (const Type type : {Type::f32, Type::bf16, Type::f16}) check(type, m, n, k, true, m % 2);
}

TEST_P(GemmTest, EveryWidth) {
  for (int n = 0; n <= 35; ++n)
    for (const int m : {1, 2, 5, 9, 25})
      for (const bool panels : {true, false})
        for (const Type type : {Type::f32, Type::bf16, Type::f16}) check(type, m, n, 19, panels, n % 2);
}

TEST_P(GemmTest, LongSums) {
  for (const int k : {0, 1, 319, 320, 321, 576, 1000, 1536}) {
    if (kSanitized && k > 576) continue;
    for (const int m : {1, 3, 20, 30})
      for (const bool panels : {true, false})
        for (const bool accumulate : {true, false}) check(Type::f32, m, 41, k, panels, accumulate);
  }
  for (const Type type : {Type::bf16, Type::f16})
    for (const int m : {1, 7, 30}) check(type, m, 24, 1536, m == 7, true);
}

TEST_P(GemmTest, ManyTokens) {
  for (const int m : kSanitized ? std::vector{145} : std::vector{72, 144, 145, 300})
    for (const Type type : {Type::f32, Type::bf16, Type::f16})
      for (const bool panels : {true, false}) check(type, m, 40, 330, panels, m % 2);
}

TEST_P(GemmTest, TokenDoesNotDependOnItsCompany) {
  for (const int m : {2, 4, 6, 17, 80, 150}) {
    const Product many(Type::f32, m, 53, 700, true, true, 5);
    const auto all = many.run(*set().set);
    for (int i = 0; i < m; ++i) {
      std::vector<float> c(53, 0.f);
      for (int j = 0; j < 53; ++j) c[size_t(j)] = many.start(i, j);
      Gemm g = many.operands(c.data());
      g.a += i * g.a_row;
      g.m = 1;
      set()->gemm_f32(g);
      for (int j = 0; j < 53; ++j)
        ASSERT_TRUE(same_bits(c[size_t(j)], all[many.at(i, j)])) << m << ": " << i << "," << j;
    }
  }
}

// Every 16-bit pattern as a weight, against base/numeric.h: the product with 1 is the decoded value.
TEST_P(GemmTest, DecodesEveryPattern) {
  const std::vector<float> one(32, 1.f);
  std::vector<uint16_t> b(65536);
  for (size_t i = 0; i < b.size(); ++i) b[i] = uint16_t(i);
  std::vector<float> c(b.size() * 32);
  for (const int m : {1, 16, 32}) {
    const Gemm g{.a = one.data(),
                 .a_row = 1,
                 .b = b.data(),
                 .b_panel = 16,
                 .b_k = 16,
                 .c = c.data(),
                 .c_row = 65536,
                 .m = m,
                 .n = 65536,
                 .k = 1,
                 .accumulate = false};
    for (const bool half : {false, true}) {
      (half ? set()->gemm_f16 : set()->gemm_bf16)(g);
      for (size_t i = 0; i < b.size() * size_t(m); ++i) {
        const float want = half ? f16_to_f32(b[i % 65536]) : bf16_to_f32(b[i % 65536]);
        ASSERT_TRUE(std::isnan(want) ? std::isnan(c[i]) : c[i] == want) << half << " " << i % 65536;
      }
    }
  }
}

TEST_P(GemmTest, NanAndInfinityStayInTheirRowAndColumn) {
  constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (const int m : {3, 30}) {
    Product p(Type::f32, m, 20, 50, true, false, 9);
    p.put_a(1, 40, nan);
    p.put_b(7, 18, inf);
    const auto c = p.run(*set().set);
    for (int i = 0; i < m; ++i)
      for (int j = 0; j < 20; ++j) {
        EXPECT_EQ(std::isnan(c[p.at(i, j)]), i == 1) << i << "," << j;
        EXPECT_EQ(std::isinf(c[p.at(i, j)]), i != 1 && j == 18) << i << "," << j;
      }
  }
}

AWQ_EVERY_SET(GemmTest);

}  // namespace
}  // namespace awq::kernels
