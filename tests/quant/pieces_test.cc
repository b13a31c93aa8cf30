#include "quant/pieces.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "base/parallel.h"

namespace awq {
namespace {

bool same(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && std::equal(a.data(), a.data() + a.bytes(), b.data());
}

// 1,100 rows of 1 kB are two bands of 512 and a part of one.
TEST(Pieces, RoundingBandByBandIsRoundingTheWhole) {
  std::mt19937 rng(1);
  std::normal_distribution<float> normal;
  Tensor w = Tensor::empty({1100, 256}, DType::f32);
  for (float& v : w.as<float>()) v = normal(rng);
  ASSERT_EQ(pieces_of(w).count, 3);
  for (int bits : {4, 8})
    for (int threads : {1, 5}) {
      ThreadPool pool(threads);
      const QuantSpec spec{.bits = bits, .group_size = 64};
      const QMatrix got = quantize(pieces_of(w), spec, pool), want = quantize(w, spec);
      EXPECT_EQ(got.spec, spec);
      EXPECT_TRUE(same(got.codes, want.codes));
      EXPECT_TRUE(same(got.scales, want.scales));
      EXPECT_TRUE(same(got.zeros, want.zeros));
    }
}

}  // namespace
}  // namespace awq
