#include "serve/fields.h"

#include <gtest/gtest.h>

namespace awq {
namespace {

using Json = nlohmann::ordered_json;

std::string refused(const std::function<void(const Fields&)>& ask, const char* object) {
  const Json j = Json::parse(object);
  try {
    ask(Fields(j, "o."));
  } catch (const ApiError& e) {
    EXPECT_EQ(e.status, 400);
    return e.param + ": " + e.what();
  }
  return "";
}

TEST(Fields, TypesAndRanges) {
  const Json j = Json::parse(R"({"a": 1.5, "b": 7, "c": true, "d": "x", "e": null})");
  const Fields f(j);
  EXPECT_EQ(f.number("a", 0, 0, 2), 1.5);
  EXPECT_EQ(f.number("b", 0, 0, 9), 7);
  EXPECT_EQ(f.whole("b", 0, 0, 9), 7);
  EXPECT_EQ(f.whole("e", 4, 0, 9), 4);
  EXPECT_EQ(f.whole("z", 4, 0, 9), 4);
  EXPECT_TRUE(f.flag("c", false));
  EXPECT_EQ(f.text("d"), "x");
  EXPECT_EQ(f.text("z", "y"), "y");
}

TEST(Fields, WhatIsWrongIsNamed) {
  EXPECT_EQ(refused([](const Fields& f) { f.number("a", 0, 0, 2); }, R"({"a": "1"})"),
            "o.a: o.a: expected a number from 0 to 2, got \"1\"");
  EXPECT_EQ(refused([](const Fields& f) { f.number("a", 0, 0, 2); }, R"({"a": 2.5})"),
            "o.a: o.a: expected a number from 0 to 2, got 2.5");
  EXPECT_EQ(refused([](const Fields& f) { f.whole("a", 0, 0, 2); }, R"({"a": 1.0})"),
            "o.a: o.a: expected a whole number from 0 to 2, got 1.0");
  EXPECT_NE(refused([](const Fields& f) { f.whole("a", 0, 0, 2); }, R"({"a": 18446744073709551615})"), "");
  EXPECT_NE(refused([](const Fields& f) { f.flag("a", false); }, R"({"a": 1})"), "");
  EXPECT_NE(refused([](const Fields& f) { f.text("a"); }, R"({"a": []})"), "");
  EXPECT_THROW(Fields(Json::parse("[]")), ApiError);
  const std::string shown =
      refused([](const Fields& f) { f.text("a"); }, ("{\"a\": [" + std::string(200, '1') + "]}").c_str());
  EXPECT_LT(shown.size(), 90u);  // not the client's whole text
}

}  // namespace
}  // namespace awq
