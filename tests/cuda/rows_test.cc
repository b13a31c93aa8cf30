#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <span>
#include <vector>

#include "cuda/executor_set.h"

namespace awq::cuda {
namespace {

/// By order of (value, place): what Top is to give.
std::vector<std::pair<float, int32_t>> sorted(std::span<const float> row) {
  std::vector<std::pair<float, int32_t>> all;
  for (size_t i = 0; i < row.size(); ++i)
    if (row[i] == row[i]) all.emplace_back(row[i], int32_t(i));
  std::ranges::sort(all,
                    [](auto& a, auto& b) { return a.first > b.first || (a.first == b.first && a.second < b.second); });
  return all;
}

class Top : public testing::Test {
 protected:
  /// In pieces, and then of all pieces, as the backend does.
  void run(std::span<const float> x, int rows, int width, int count, int pieces) {
    std::vector<float> some(size_t(rows * pieces * count));
    std::vector<int32_t> places(some.size());
    values.assign(size_t(rows * count), 7);
    tokens.assign(values.size(), -1);
    executor_kernels().top(nullptr, {x.data(), nullptr, some.data(), places.data(), rows, width, count, pieces});
    executor_kernels().top(nullptr,
                           {some.data(), places.data(), values.data(), tokens.data(), rows, pieces * count, count, 1});
  }
  void TearDown() override { executor::set_seed(0); }
  std::vector<float> values;
  std::vector<int32_t> tokens;
};

// Ties, pieces that are shorter than what is wanted of them, rows that are shorter than a block.
TEST_F(Top, IsTheLargestInTheirOrder) {
  std::mt19937 rng(4);
  for (const int width : {1, 31, 256, 700})
    for (const int count : {1, 20})
      for (const int pieces : {1, 9}) {
        if (count > width) continue;
        std::vector<float> x(size_t(3 * width));
        for (float& v : x) v = float(rng() % 7) - 3;
        for (uint64_t seed = 0; seed < 2; ++seed) {
          executor::set_seed(seed);
          run(x, 3, width, count, pieces);
          for (int r = 0; r < 3; ++r) {
            const auto want = sorted(std::span(x).subspan(size_t(r * width), size_t(width)));
            for (int i = 0; i < count; ++i) {
              ASSERT_EQ(values[size_t(r * count + i)], want[size_t(i)].first) << width << ' ' << count << ' ' << pieces;
              ASSERT_EQ(tokens[size_t(r * count + i)], want[size_t(i)].second)
                  << width << ' ' << count << ' ' << pieces;
            }
          }
        }
      }
}

TEST_F(Top, WhatIsNoNumberIsNotAmongThem) {
  const std::vector<float> x = {1, NAN, -INFINITY, NAN, 5, INFINITY};
  run(x, 1, 6, 5, 2);
  EXPECT_EQ(std::vector(tokens.begin(), tokens.begin() + 3), (std::vector<int32_t>{5, 4, 0}));
  EXPECT_EQ(tokens[4], kNoPlace);
}

}  // namespace
}  // namespace awq::cuda
