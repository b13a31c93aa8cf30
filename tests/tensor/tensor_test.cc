#include "tensor/tensor.h"

#include <gtest/gtest.h>

#include <algorithm>

#include <cmath>
#include <cstring>

#include "base/numeric.h"

namespace awq {
namespace {

// Independent of f16_to_f32: the definition of a half, in double.
double half_value(uint16_t h) {
  const int exponent = (h >> 10) & 31, mantissa = h & 1023;
  const double sign = h & 0x8000 ? -1 : 1;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

TEST(Half, EveryFiniteValueWidensExactlyAndComesBack) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    if ((h & 0x7c00) == 0x7c00) continue;
    ASSERT_EQ(double(f16_to_f32(uint16_t(h))), half_value(uint16_t(h))) << h;
    ASSERT_EQ(f32_to_f16(f16_to_f32(uint16_t(h))), h);
  }
}

TEST(Half, RoundsToNearestEvenBetweenEveryPairOfNeighbours) {
  for (uint16_t h = 0; h < 0x7bff; ++h) {
    const auto next = uint16_t(h + 1);
    const auto middle = float((half_value(h) + half_value(next)) / 2);  // 12 significant bits: exact in float
    ASSERT_EQ(f32_to_f16(middle), h & 1 ? next : h) << h;
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, 1e9f)), next);
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, -1.f)), h);
    ASSERT_EQ(f32_to_f16(-middle), uint16_t((h & 1 ? next : h) | 0x8000));
  }
}

TEST(Half, SpecialValues) {
  EXPECT_EQ(f32_to_f16(65519.996f), 0x7bff);
  EXPECT_EQ(f32_to_f16(65520.f), 0x7c00);
  EXPECT_TRUE(std::isinf(f16_to_f32(0xfc00)));
  EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(NAN))));
}

TEST(Bfloat, RoundsToNearestEven) {
  EXPECT_EQ(f32_to_bf16(1.f), 0x3f80);
  EXPECT_EQ(f32_to_bf16(1.00390625f), 0x3f80);  // half way between 0x3f80 and 0x3f81: even wins
  EXPECT_EQ(f32_to_bf16(1.01171875f), 0x3f82);  // half way between 0x3f81 and 0x3f82
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(NAN))));
}

TEST(Shape, RefusesWhatOverflows) {
  EXPECT_THROW(Shape({int64_t(1) << 40, int64_t(1) << 40}), Error);
  EXPECT_THROW(Shape({-1, 2}), Error);
  EXPECT_EQ(Shape({3, 4}).text(), "[3, 4]");
}

// Tensors of some size take over freed memory of the same size: what was in it must not be seen as zeros.
TEST(Tensor, ZerosAreZerosInMemoryThatWasUsed) {
  constexpr int64_t kElements = 1 << 18;
  for (int i = 0; i < 3; ++i) {
    Tensor used = Tensor::empty({kElements}, DType::f32);
    std::ranges::fill(used.as<float>(), 1.f);
    used = {};
    const Tensor zeros = Tensor::zeros({kElements}, DType::f32);
    EXPECT_EQ(std::ranges::count(zeros.as<float>(), 0.f), kElements);
  }
}

// Whoever still has a tensor keeps its memory.
TEST(Tensor, SharedMemoryIsNotTakenOver) {
  constexpr int64_t kElements = 1 << 18;
  Tensor one = Tensor::zeros({kElements}, DType::f32);
  const Tensor same = one;
  one = {};
  Tensor other = Tensor::empty({kElements}, DType::f32);
  std::ranges::fill(other.as<float>(), 1.f);
  EXPECT_EQ(std::ranges::count(same.as<float>(), 0.f), kElements);
}

TEST(Tensor, RowsShareAndConvertersCopy) {
  const float v[] = {1, 2, 3, 4, 5, 6};
  Tensor t = Tensor::of<float>(v, {3, 2});
  Tensor row = t.rows(1, 2);
  row.as<float>()[0] = 30;
  EXPECT_EQ(t.as<float>()[2], 30);
  EXPECT_EQ(t.to(DType::f16).to(DType::f32).as<float>()[2], 30);
  EXPECT_THROW(t.as<int32_t>(), Error);
  EXPECT_THROW(t.rows(2, 4), Error);
  EXPECT_THROW(t.reshaped({4, 2}), Error);
}

}  // namespace
}  // namespace awq
