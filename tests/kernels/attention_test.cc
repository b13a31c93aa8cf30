// One page of attention on every set; tests/model compares whole attentions with double precision.
#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/sets.h"

namespace awq::kernels {
namespace {

// Every 97th float from -126 to 0. The constants are rounded once each and so is every step; without fma products are,
// too: 1.4 and 4 roundings.
TEST(Exp2, WithinItsBound) {
  double worst = 0;
  for (uint32_t bits = 0x80000000; bits <= 0xc2fc0000; bits += 97) {
    const auto t = std::bit_cast<float>(bits);
    const double exact = std::exp2(double(t));
    worst = std::max(worst, std::abs(double(exp2_approx(t)) - exact) / exact);
  }
  EXPECT_LE(worst, 4 * kU);
  EXPECT_GT(worst, 0.5 * kU) << "rounding alone gives this much: the comparison is broken";
}

TEST(Exp2, Ends) {
  EXPECT_EQ(exp2_approx(0.f), 1.f);
  EXPECT_EQ(exp2_approx(-126.f), 0x1p-126f);
  EXPECT_EQ(exp2_approx(-126.5f), 0.f);
  EXPECT_EQ(exp2_approx(-1e30f), 0.f);
  EXPECT_EQ(exp2_approx(-HUGE_VALF), 0.f);
  EXPECT_TRUE(std::isnan(exp2_approx(std::numeric_limits<float>::quiet_NaN())));
}

struct Kind {
  int bytes;
  bool scales;
  void (*KernelSet::*attend)(const AttentionStep&);
};
constexpr Kind kKinds[] = {{4, false, &KernelSet::attend_f32},
                           {2, false, &KernelSet::attend_bf16},
                           {2, false, &KernelSet::attend_f16},
                           {1, true, &KernelSet::attend_i8},
                           {1, true, &KernelSet::attend_f8}};

/// A page whose elements are small numbers in any type, ending where memory is unreadable.
class Page {
 public:
  Page(Kind kind, int dim, int value_dim, unsigned seed)
      : bytes_(size_t(kKvPage * ((dim + value_dim) * kind.bytes + (kind.scales ? 8 : 0)))) {
    std::mt19937 rng(seed);
    const size_t n = size_t(kKvPage * (dim + value_dim));
    for (size_t i = 0; i < n; ++i) {
      const float f = std::bit_cast<float>(0x3e000000u | (uint32_t(rng()) & 0x80ff0000u));  // +-1/8 to 1/2, in bfloat16
      const auto half = uint16_t(0x3000 | (rng() & 0x87ff));
      const auto code = int8_t(rng());
      const auto brain = uint16_t(std::bit_cast<uint32_t>(f) >> 16);
      const void* from = kind.bytes == 4                         ? static_cast<const void*>(&f)
                         : kind.scales                           ? static_cast<const void*>(&code)
                         : kind.attend == &KernelSet::attend_f16 ? static_cast<const void*>(&half)
                                                                 : static_cast<const void*>(&brain);
      std::memcpy(bytes_.data() + i * size_t(kind.bytes), from, size_t(kind.bytes));
    }
    for (size_t i = 0; kind.scales && i < 2 * size_t(kKvPage); ++i) {
      const float scale = 0.001f * float(1 + rng() % 9);
      std::memcpy(bytes_.data() + n + 4 * i, &scale, 4);
    }
  }
  const void* data() const { return bytes_.data(); }
  /// Of bfloat16: the values of a position, [channel / 16][position / 2][16][2].
  void set_nan(int position, int dim) {
    for (int c = 0; c < dim; ++c) {
      const size_t at = size_t(kKvPage * dim + c / 16 * 16 * kKvPage + position / 2 * 32 + c % 16 * 2 + position % 2);
      const uint16_t nan = 0x7fc0;
      std::memcpy(bytes_.data() + 2 * at, &nan, 2);
    }
  }

 private:
  Guarded<uint8_t> bytes_;
};

/// Tiles multiply pairs of bfloat16.
bool on_tiles(const KernelSet& set, Kind kind) { return kind.attend == &KernelSet::attend_bf16 && set.tiles_bf16; }

class AttentionTest : public KernelTest {
 protected:
  /// What rows see: any part, all, or nothing.
  static std::pair<std::vector<int32_t>, std::vector<int32_t>> ranges(int rows, unsigned seed) {
    std::mt19937 rng(seed);
    std::vector<int32_t> begin(static_cast<size_t>(rows)), end(begin);
    for (size_t r = 0; r < begin.size(); ++r) {
      begin[r] = int32_t(rng() % 3 * rng() % kKvPage);
      end[r] = rng() % 5 ? begin[r] + int32_t(rng() % uint32_t(kKvPage - begin[r] + 1)) : int32_t(kKvPage);
    }
    return {begin, end};
  }
  static std::vector<float> run(const KernelSet& set, Kind kind, const Page& page, int rows, int dim, int value_dim,
                                const std::vector<int32_t>& first, const std::vector<int32_t>& last) {
    const Guarded<float> q(normals(size_t(rows * dim), 3)), max(size_t(rows), 7), sum(size_t(rows), 7),
        out(size_t(rows * value_dim), 7);
    const Guarded<int32_t> begin(first), end(last);
    (set.*kind.attend)({.page = page.data(),
                        .q = q.data(),
                        .first = begin.data(),
                        .last = end.data(),
                        .rows = rows,
                        .dim = dim,
                        .value_dim = value_dim,
                        .to = {max.data(), sum.data(), out.data()}});
    std::vector<float> all(max.begin(), max.end());
    all.insert(all.end(), sum.begin(), sum.end());
    all.insert(all.end(), out.begin(), out.end());
    return all;
  }
};

class TileAttentionTest : public AttentionTest {};

// Sets that fuse agree to the bit, for every number of rows and kind of range; emulated AVX-512 is one of them.
TEST_P(AttentionTest, SameBitsAsOtherFusedSets) {
  std::vector<NamedSet> others = sets();
  std::erase_if(others, [](const NamedSet& s) { return s->tiles_bf16 != nullptr; });
  const NamedSet first = others.front();
  if (!set().fused()) GTEST_SKIP() << "rounds products: differs by design";
  if (!first.fused()) GTEST_SKIP() << "this machine runs no fused set";
  for (const Kind kind : kKinds)
    for (const auto& [dim, value_dim] : {std::pair(16, 16), {48, 48}, {64, 64}, {80, 80}, {48, 32}, {32, 64}})
      for (const int rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 31, 64}) {
        if (on_tiles(*set().set, kind) && dim % 32 == 0) continue;  // below
        const Page page(kind, dim, value_dim, unsigned(dim));
        const auto [begin, end] = ranges(rows, unsigned(rows * dim));
        const auto a = run(*set().set, kind, page, rows, dim, value_dim, begin, end),
                   b = run(*first.set, kind, page, rows, dim, value_dim, begin, end);
        ASSERT_EQ(0, std::memcmp(a.data(), b.data(), a.size() * sizeof(float)))
            << kind.bytes << " bytes, " << rows << " rows of " << dim << " and " << value_dim;
      }
}

// On tiles of bfloat16, against the chains of fma of another set. q and weights are split to 2^-18 of themselves and
// sums of up to n products rounded n times on either side. So a score is off by d = (2^-18 + 2 n u) sum |q k|, its
// weight and the sum of weights by d ln 2 of themselves (and 3 u of the power), an output by that twice and (2^-18 + 2
// n u), of a mean of |v| <= 1/2.
TEST_P(TileAttentionTest, AsOtherSets) {
  const Kind kind = kKinds[1];
  const std::vector<NamedSet> all = sets();
  const NamedSet portable = *std::ranges::find(all, "portable", &NamedSet::name);
  for (const auto& [dim, value_dim] : {std::pair(32, 16), {64, 64}, {128, 80}, {64, 32}, {256, 256}})
    for (const int rows : {1, 3, 15, 16, 17, 33, 50, 64}) {
      SCOPED_TRACE(testing::Message() << rows << " rows of " << dim << " and " << value_dim);
      const Page page(kind, dim, value_dim, unsigned(dim));
      const auto [begin, end] = ranges(rows, unsigned(rows * dim));
      const auto a = run(*set().set, kind, page, rows, dim, value_dim, begin, end),
                 b = run(*portable.set, kind, page, rows, dim, value_dim, begin, end);
      const auto q = normals(size_t(rows * dim), 3);
      for (int r = 0; r < rows; ++r) {
        double magnitude = 0;
        for (int c = 0; c < dim; ++c) magnitude += std::abs(double(q[size_t(r * dim + c)])) / 2;
        const double score = (0x1p-18 + 2 * dim * kU) * magnitude, weight = score * std::log(2.) + 3 * kU;
        if (begin[size_t(r)] < end[size_t(r)]) {
          ASSERT_NEAR(a[size_t(r)], b[size_t(r)], score);
        }
        const double sum = b[size_t(rows + r)], off = 2 * weight + 0x1p-18 + 2 * kKvPage * kU;
        ASSERT_NEAR(a[size_t(rows + r)], sum, sum * off);
        for (int c = 0; c < value_dim; ++c) {
          const size_t at = size_t(2 * rows + r * value_dim + c);
          ASSERT_NEAR(a[at], b[at], sum * off) << r << "," << c;
        }
      }
    }
}

// What nobody sees may be NaN; what others see may be one, and stays with them. A row's bits depend on it alone
// otherwise.
TEST_P(TileAttentionTest, NobodyMeetsWhatItDoesNotSee) {
  const Kind kind = kKinds[1];
  constexpr int kDim = 64, kRows = 40;
  std::vector<int32_t> begin(kRows, 3), end(kRows);
  for (int r = 0; r < kRows; ++r) end[size_t(r)] = 100 + r;
  const Page clean(kind, kDim, kDim, 1);
  const auto expected = run(*set().set, kind, clean, kRows, kDim, kDim, begin, end);
  Page dirty(kind, kDim, kDim, 1);
  for (const int at : {0, 2, 139, 200}) dirty.set_nan(at, kDim);
  const auto same = run(*set().set, kind, dirty, kRows, kDim, kDim, begin, end);
  EXPECT_EQ(0, std::memcmp(same.data(), expected.data(), same.size() * sizeof(float)));
  dirty.set_nan(120, kDim);
  const auto some = run(*set().set, kind, dirty, kRows, kDim, kDim, begin, end);
  for (int r = 0; r < kRows; ++r)
    for (int c = 0; c < kDim; ++c)
      ASSERT_EQ(std::isnan(some[size_t(2 * kRows + r * kDim + c)]), end[size_t(r)] > 120) << r << "," << c;
  for (const int r : {0, 17, 39}) {
    const Guarded<float> q(normals(kRows * kDim, 3));
    float max = 0, sum = 0;
    std::vector<float> out(kDim);
    set()->attend_bf16({.page = clean.data(),
                        .q = q.data() + r * kDim,
                        .first = &begin[size_t(r)],
                        .last = &end[size_t(r)],
                        .rows = 1,
                        .dim = kDim,
                        .value_dim = kDim,
                        .to = {&max, &sum, out.data()}});
    EXPECT_EQ(max, expected[size_t(r)]);
    EXPECT_EQ(sum, expected[size_t(kRows + r)]);
    EXPECT_EQ(0, std::memcmp(out.data(), expected.data() + 2 * kRows + r * kDim, kDim * sizeof(float)));
  }
}

// Nothing seen: the part that merging does not notice, to the sign of a zero.
TEST_P(AttentionTest, EmptyPartIsNeutral) {
  for (const Kind kind : kKinds) {
    const Page page(kind, 16, 16, 1);
    std::vector<float> part = run(*set().set, kind, page, 2, 16, 16, {0, 256}, {0, 256});
    EXPECT_EQ(part[0], -HUGE_VALF);
    EXPECT_EQ(part[2], 0.f);
    std::vector<float> into = normals(36, 5);
    into[5] = -0.f;
    const std::vector<float> before = into;
    set()->attention_merge({part.data(), part.data() + 2, part.data() + 4}, 2, 16,
                           {into.data(), into.data() + 2, into.data() + 4});
    EXPECT_EQ(0, std::memcmp(into.data(), before.data(), sizeof(float) * 36));
  }
}

// Parts of maxima far apart: 2^(a - max) and 2^(b - max), two products and a sum.
TEST_P(AttentionTest, MergeWeighsByMaximum) {
  float max_a[] = {3.f}, sum_a[] = {2.f}, max_b[] = {-5.5f}, sum_b[] = {4.f};
  std::vector<float> a(16, 1.f), b(16, 8.f);
  set()->attention_merge({max_b, sum_b, b.data()}, 1, 16, {max_a, sum_a, a.data()});
  const double w = std::exp2(-8.5);
  EXPECT_EQ(max_a[0], 3.f);
  EXPECT_NEAR(sum_a[0], 2 + 4 * w, 6 * kU * 3);
  EXPECT_NEAR(a[3], 1 + 8 * w, 6 * kU * 2);
}

AWQ_EVERY_SET(AttentionTest);
AWQ_SETS_WITH_TILES(TileAttentionTest);

}  // namespace
}  // namespace awq::kernels
