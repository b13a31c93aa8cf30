#include "quantizer/prompts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

namespace awq {
namespace {

TEST(Prompts, AreValidTextAndAllDifferent) {
  std::set<std::string_view> seen;
  for (const CalibrationPrompt& p : calibration_prompts()) {
    EXPECT_TRUE(seen.insert(p.text).second) << p.text;
    EXPECT_NO_THROW(nlohmann::json(p.text).dump()) << p.text;  // which refuses what is no UTF-8
  }
}

// A small model's calibration uses 32 of them: all kinds must be among those, and a good part not English.
TEST(Prompts, TheFirstOnesAreAFairSample) {
  std::map<PromptKind, int> kinds;
  int beyond_ascii = 0;
  for (const CalibrationPrompt& p : calibration_prompts().first(32)) {
    ++kinds[p.kind];
    beyond_ascii += std::any_of(p.text.begin(), p.text.end(), [](char c) { return uint8_t(c) > 127; });
  }
  EXPECT_GE(kinds[PromptKind::text], 8);
  EXPECT_GE(kinds[PromptKind::chat], 6);
  EXPECT_GE(kinds[PromptKind::code], 4);
  EXPECT_GE(kinds[PromptKind::math], 2);
  EXPECT_GE(beyond_ascii, 4);
}

}  // namespace
}  // namespace awq
