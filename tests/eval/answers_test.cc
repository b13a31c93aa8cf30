#include "eval/repetition.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "awq/error.h"
#include "eval/answer_prompts.h"
#include "eval/task_score.h"

namespace awq {
namespace {

using Tokens = std::vector<int32_t>;

TEST(Continuation, RepetitionIsOfRunsOfFour) {
  EXPECT_EQ(repetition(Tokens{1, 2, 3}), 0);
  EXPECT_EQ(repetition(Tokens{1, 2, 3, 4, 1, 2, 3}), 0);
  EXPECT_DOUBLE_EQ(repetition(Tokens{1, 2, 3, 4, 1, 2, 3, 4}), 0.2);
  EXPECT_DOUBLE_EQ(repetition(Tokens(13, 7)), 0.9);
}

TEST(Continuation, SameTokensEndAtTheFirstDifference) {
  EXPECT_EQ(same_tokens(Tokens{1, 2, 3, 4}, Tokens{1, 2, 9, 4}), 2u);
  EXPECT_EQ(same_tokens(Tokens{1, 2}, Tokens{1, 2, 3}), 2u);
  EXPECT_EQ(same_tokens(Tokens{1, 2, 3}, Tokens{1, 2}), 2u);
}

TEST(Continuation, BuiltInPromptsTakeTurns) {
  const auto some = built_in_prompts(24);
  for (size_t i = 0; i < some.size(); ++i) {
    EXPECT_EQ(some[i].kind, (std::array{"reasoning", "code", "dialogue"}[i % 3]));
    EXPECT_EQ(some[i].messages.is_null(), some[i].kind == "code");
  }
  EXPECT_THROW(built_in_prompts(25), Error);
}

// By hand: two parts of 3 and 2 items.
TEST(Pooled, WeighsPartsByTheirItems) {
  const std::vector<double> a = {1, 0, 0}, b = {1, 0};
  const std::vector<Estimate> parts = {metric_of("acc", a), metric_of("acc", b)};
  const Estimate e = pooled(parts, std::vector<size_t>{3, 2});
  EXPECT_DOUBLE_EQ(e.value, 0.4);
  // Variances 1/3 and 1/2: (2 * 1/3 + 1 * 1/2) / (5 - 2) / 5
  EXPECT_NEAR(e.standard_error, std::sqrt((2.0 / 3 + 0.5) / 3 / 5), 1e-12);
  EXPECT_EQ(pooled(std::vector<Estimate>{{1, 0}, {0, 0}}, std::vector<size_t>{1, 1}).standard_error, 0);
}

}  // namespace
}  // namespace awq
