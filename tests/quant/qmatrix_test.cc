#include "quant/qmatrix.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "base/numeric.h"
#include "quant/published.h"

namespace awq {
namespace {

uint32_t hex(const nlohmann::json& s) { return uint32_t(std::stoul(s.get<std::string>(), nullptr, 16)); }
float half(const nlohmann::json& s) { return f16_to_f32(uint16_t(hex(s))); }
float single(const nlohmann::json& s) { return std::bit_cast<float>(hex(s)); }

void expect_equal(const PublishedGroup& got, const nlohmann::json& want, float (*value)(const nlohmann::json&),
                  bool symmetric) {
  EXPECT_EQ(got.scale, value(want.at("scale")));
  if (!symmetric) {
    EXPECT_EQ(got.zero, want.at("zero").get<int>());
  }
  EXPECT_EQ(got.codes, want.at("q").get<std::vector<int>>());
  for (size_t i = 0; i < got.dequantized.size(); ++i) EXPECT_EQ(got.dequantized[i], value(want.at("dq").at(i)));
}

// The published vectors: every operation rounded as the reference rounds it, bit for bit.
TEST(Published, VectorsBitForBit) {
  std::ifstream file(std::string(AWQ_SHARED_DIR) + "/vectors/awq-vectors.json");
  if (!file) GTEST_SKIP() << "shared/vectors/awq-vectors.json is not there";
  const auto vectors = nlohmann::json::parse(file).at("quantize");
  ASSERT_EQ(vectors.size(), 28u);
  for (const auto& v : vectors) {
    SCOPED_TRACE(v.at("name").get<std::string>() + " bits " + v.at("bits").dump() + " sym " + v.at("sym").dump());
    std::vector<float> w;
    for (const auto& x : v.at("w_f16")) w.push_back(half(x));
    const bool symmetric = v.at("sym");
    expect_equal(quantize_published(w, v.at("bits"), symmetric, Arithmetic::half), v.at("f16"), half, symmetric);
    expect_equal(quantize_published(w, v.at("bits"), symmetric, Arithmetic::single), v.at("f32"), single, symmetric);
  }
}

Tensor random_matrix(int64_t rows, int64_t cols, float spread, float shift, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(shift, spread);
  Tensor w = Tensor::empty({rows, cols}, DType::f32);
  for (float& v : w.as<float>()) v = normal(rng);
  return w;
}

// A level is at most half a step away inside the range; rounding the scale to 11 bits moves the range's far end by at
// most levels * scale * 2^-11, and the zero point to a whole number by at most half a step more.
TEST(Quantize, ErrorIsAtMostOneStepEverywhereAndHalfAStepAwayFromTheEnds) {
  for (const auto& [bits, shift] : {std::pair(4, 0.f), {4, 0.5f}, {4, -3.f}, {8, 0.f}, {8, 0.5f}, {8, -3.f}}) {
    const Tensor w = random_matrix(7, 256, 0.5f, shift, 3);
    const QMatrix q = quantize(w, {.bits = bits, .group_size = 64});
    const int levels = q.spec.levels();
    const Tensor d = dequantize(q);
    for (int64_t i = 0; i < w.shape().elements(); ++i) {
      const auto g = size_t(i / 64);
      const float s = q.scales.as<float>()[g], error = std::abs(w.as<float>()[size_t(i)] - d.as<float>()[size_t(i)]);
      const int code = q.codes.as<uint8_t>()[size_t(i)];
      EXPECT_LE(error, (code == 0 || code == levels ? 1.001f + float(levels) / 2048 : 0.5001f) * s) << i;
      EXPECT_EQ(s, f16_to_f32(f32_to_f16(s)));
    }
  }
}

// The highest level is half a step below the range's end, and rounding the scale moves that end by at most
// levels / 2 * 2^-m of a step, m the scale's bits.
TEST(Quantize, SymmetricCodesAreAtMostHalfAStepAwayInGroupsOrWholeRows) {
  for (const DType type : {DType::f16, DType::bf16})
    for (const int group : {32, 64, 128, QuantSpec::kWholeRow})
      for (const int bits : {2, 3, 4, 8}) {
        const Tensor w = random_matrix(5, 256, 0.5f, 0.2f, 3);
        const QMatrix q = quantize(w, {.bits = bits, .group_size = group, .scale_dtype = type, .symmetric = true});
        ASSERT_EQ(q.groups(), group < 0 ? 1 : 256 / group);
        for (uint8_t z : q.zeros.as<uint8_t>()) ASSERT_EQ(z, 1 << (bits - 1));
        const float allowed = 0.5001f + float(q.spec.levels()) / 2 * (type == DType::f16 ? 0x1p-11f : 0x1p-8f);
        const Tensor d = dequantize(q);
        for (size_t i = 0; i < size_t(w.shape().elements()); ++i) {
          const float s = q.scales.as<float>()[i / size_t(q.spec.group_size)];
          ASSERT_LE(std::abs(w.as<float>()[i] - d.as<float>()[i]), allowed * s) << bits << ' ' << group;
          ASSERT_EQ(s, Tensor::of<float>({&s, 1}, {1}).to(type).to(DType::f32).as<float>()[0]);
        }
        const auto codes = q.codes.as<uint8_t>();
        EXPECT_GT(std::ranges::count(codes, 0) + std::ranges::count(codes, q.spec.levels()), 4);  // one a row at least
      }
}

TEST(Quantize, ZeroIsExactAndOneSidedGroupsKeepTheirLargestValue) {
  std::vector<float> w(128, 0.f);
  for (int i = 0; i < 64; ++i)
    w[size_t(i)] = 5.f + 0.01f * float(i);  // all positive: AWQ's published rule cuts these to max - min
  const QMatrix q = quantize(Tensor::of<float>(w, {2, 64}), {.bits = 4, .group_size = 64});
  const Tensor d = dequantize(q);
  EXPECT_NEAR(d.as<float>()[63], 5.63f, 5.63f / 15 / 2);
  for (int i = 64; i < 128; ++i) EXPECT_EQ(d.as<float>()[size_t(i)], 0.f);
}

TEST(Quantize, TinyAndHugeValues) {
  const float tiny[] = {1e-9f, -1e-9f, 1e-12f, 0, 0, 0, 0, 0};
  EXPECT_EQ(dequantize(quantize(Tensor::of<float>(tiny, {1, 8}), {.bits = 4, .group_size = 8})).as<float>()[0], 0.f);
  const float huge[] = {1e6f, -1e6f, 0, 0, 0, 0, 0, 0};
  EXPECT_THROW(quantize(Tensor::of<float>(huge, {1, 8}), {.bits = 4, .group_size = 8}), Error);
  EXPECT_THROW(quantize(Tensor::of<float>(huge, {1, 8}), {.bits = 4, .group_size = 3}), Error);
}

TEST(Quantize, RangesReplaceTheWeightsOwn) {
  Tensor w = random_matrix(3, 64, 1.f, 0.f, 9);
  const std::vector<Range> ranges(3 * 2, Range{-0.25f, 0.75f});
  const QMatrix q = quantize(w, {.bits = 4, .group_size = 32}, ranges);
  for (float s : q.scales.as<float>()) EXPECT_NEAR(s, 1.f / 15, 1.f / 15 / 1024);
}

}  // namespace
}  // namespace awq
