#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "cuda/executor_set.h"

namespace awq::cuda {
namespace {

// Ties, and rows that are shorter than a block: the first of the largest.
TEST(Greedy, IsTheFirstOfTheLargest) {
  std::mt19937 rng(4);
  for (const int width : {1, 31, 256, 700}) {
    std::vector<float> logits(size_t(3 * width));
    for (float& v : logits) v = float(rng() % 7);
    std::vector<int32_t> token(3, -1);
    for (uint64_t seed = 0; seed < 3; ++seed) {
      executor::set_seed(seed);
      executor_kernels().greedy(nullptr, {logits.data(), token.data(), 3, width});
      for (int r = 0; r < 3; ++r) {
        const auto row = logits.begin() + r * width;
        EXPECT_EQ(token[size_t(r)], std::max_element(row, row + width) - row) << width;
      }
    }
    executor::set_seed(0);
  }
}

}  // namespace
}  // namespace awq::cuda
