#include "text/jinja_value.h"

#include <gtest/gtest.h>

#include <cmath>

namespace awq::jinja {
namespace {

// Expected values are what Python prints.
TEST(JinjaValue, Reals) {
  const std::pair<double, const char*> cases[] = {{0.0, "0.0"},
                                                  {-0.0, "-0.0"},
                                                  {1.0, "1.0"},
                                                  {0.1, "0.1"},
                                                  {1.0 / 3, "0.3333333333333333"},
                                                  {1e15, "1000000000000000.0"},
                                                  {1e16, "1e+16"},
                                                  {123456.789, "123456.789"},
                                                  {1e-4, "0.0001"},
                                                  {1e-5, "1e-05"},
                                                  {5e-324, "5e-324"},
                                                  {-2.5e-7, "-2.5e-07"},
                                                  {1.7976931348623157e308, "1.7976931348623157e+308"},
                                                  {9007199254740993.0, "9007199254740992.0"}};
  for (const auto& [d, text] : cases) EXPECT_EQ(repr_real(d), text);
  EXPECT_EQ(repr_real(std::nan("")), "nan");
  EXPECT_EQ(repr_real(-INFINITY), "-inf");
}

TEST(JinjaValue, NestingIsLimited) {
  Budget budget(1 << 20);
  Value v = make_list(budget, {});
  for (int i = 1; i < 100; ++i) v = make_list(budget, {v});
  EXPECT_THROW(make_list(budget, {v}), Fault);
  Dict d;
  EXPECT_THROW(d.set(Value("x"), v), Fault);
}

/// A list of a list of a list ..., twice each: 2^60 entries to print, 60 to store.
Value doubled(Budget& budget) {
  Value v(int64_t(1));
  for (int i = 0; i < 60; ++i) v = make_list(budget, {v, v});
  return v;
}

TEST(JinjaValue, SharedValuesDoNotExplode) {
  Budget budget(1 << 20);
  const Value v = doubled(budget);
  EXPECT_THROW(str(budget, v), Fault);
  Budget other(1 << 20);
  EXPECT_THROW(to_json(other, v, {}), Fault);
  Budget third(1 << 20);
  EXPECT_THROW(equals(third, v, doubled(third)), Fault);
}

TEST(JinjaValue, KeysAreEqualAsNumbersAre) {
  Budget budget(1000);
  Dict d;
  d.set(Value(int64_t(1)), Value("one"));
  d.set(Value(true), Value("true"));
  d.set(Value(1.0), Value("real"));
  d.set(Value("1"), Value("text"));
  ASSERT_EQ(d.items.size(), 2u);
  EXPECT_EQ(d.find(Value(int64_t(1)))->text(), "real");
  EXPECT_EQ(d.find("1")->text(), "text");
  EXPECT_THROW(hash_key(make_list(budget, {})), Fault);
}

}  // namespace
}  // namespace awq::jinja
