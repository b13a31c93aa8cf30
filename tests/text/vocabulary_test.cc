#include "text/vocabulary.h"

#include <gtest/gtest.h>

#include "awq/error.h"
#include "text/merges.h"

namespace awq {
namespace {

TEST(Vocabulary, BothWays) {
  Vocabulary v(5000);
  for (int i = 0; i < 5000; ++i) v.add("token " + std::to_string(i * 7 % 5000), i * 2);
  EXPECT_EQ(v.size(), 9999);
  for (int i = 0; i < 5000; ++i) {
    EXPECT_EQ(v.id_of("token " + std::to_string(i * 7 % 5000)), i * 2);
    EXPECT_EQ(*v.text_of(i * 2), "token " + std::to_string(i * 7 % 5000));
  }
  EXPECT_EQ(v.text_of(1), nullptr);
  EXPECT_EQ(v.text_of(-1), nullptr);
  EXPECT_EQ(v.text_of(10000), nullptr);
  EXPECT_EQ(v.id_of("token"), std::nullopt);
  EXPECT_EQ(Vocabulary(0).id_of(""), std::nullopt);
}

TEST(Vocabulary, RefusesDoublesAndWildIds) {
  Vocabulary v(2);
  v.add("a", 0);
  EXPECT_THROW(v.add("a", 1), Error);
  EXPECT_THROW(v.add("b", 0), Error);
  EXPECT_THROW(v.add("b", -1), Error);
  EXPECT_THROW(v.add("b", 65536 + 33), Error);  // would take memory for 65,000 others
  v.add("b", 65536 + 32);
  Vocabulary large(size_t(1) << 30);
  EXPECT_THROW(large.add("a", Vocabulary::limit), Error);
}

TEST(Merges, FindsWhatWasSet) {
  Merges m(1000);
  for (int i = 0; i < 1000; ++i) m.set(i, 999 - i, {i, i + 1});
  m.set(5, 994, {7, 8});
  EXPECT_EQ(m.find(5, 994)->rank, 7);
  EXPECT_EQ(m.find(6, 993)->id, 7);
  EXPECT_EQ(m.find(993, 7), nullptr);
  EXPECT_EQ(Merges().find(0, 0), nullptr);
}

}  // namespace
}  // namespace awq
