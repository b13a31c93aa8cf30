#include "text/python_text.h"

#include <gtest/gtest.h>

namespace awq::python {
namespace {

using Parts = std::vector<std::string_view>;

// Expected values are what Python 3.11 prints.
TEST(PythonText, Splits) {
  EXPECT_EQ(split("a,b,,c", ",", -1), (Parts{"a", "b", "", "c"}));
  EXPECT_EQ(split("a,b,,c", ",", 2), (Parts{"a", "b", ",c"}));
  EXPECT_EQ(split("", ",", -1), (Parts{""}));
  EXPECT_EQ(rsplit("a,b,,c", ",", 1), (Parts{"a,b,", "c"}));
  EXPECT_EQ(split_spaces(" a \u3000b\x1c c ", -1), (Parts{"a", "b", "c"}));
  EXPECT_EQ(split_spaces(" a  b c ", 1), (Parts{"a", "b c "}));
  EXPECT_EQ(rsplit_spaces(" a  b c ", 1), (Parts{" a  b", "c"}));
  EXPECT_EQ(split_spaces("  ", -1), Parts{});
  EXPECT_EQ(split_lines("a\nb\r\n\r\u2028c", false), (Parts{"a", "b", "", "", "c"}));
  EXPECT_EQ(split_lines("a\nb\r\n", true), (Parts{"a\n", "b\r\n"}));
}

TEST(PythonText, Strips) {
  EXPECT_EQ(strip(" \u00a0x\u2003\n", std::nullopt, true, true), "x");
  EXPECT_EQ(strip("éaxaé", "aé", true, true), "x");
  EXPECT_EQ(strip("éaxaé", "aé", false, true), "éax");
  EXPECT_EQ(strip("aaa", "a", true, true), "");
}

TEST(PythonText, Replaces) {
  EXPECT_EQ(replace("aXbXc", "X", "--", -1), "a--b--c");
  EXPECT_EQ(replace("aXbXc", "X", "", 1), "abXc");
  EXPECT_EQ(replace("é😀", "", "-", -1), "-é-😀-");
  EXPECT_EQ(replace("ab", "", "-", 2), "-a-b");
  EXPECT_EQ(count("é😀", ""), 3);
  EXPECT_EQ(count("aaa", "aa"), 1);
}

TEST(PythonText, Cases) {
  EXPECT_EQ(upper("straße ŉ ﬁ ǆ ẞ"), "STRASSE ʼN FI Ǆ ẞ");
  EXPECT_EQ(title("they're ǆ ßx ﬁn"), "They'Re ǅ Ssx Fin");
  EXPECT_EQ(capitalize("ÀB"), "Àb");
  EXPECT_TRUE(is_upper("AÉ1"));
  EXPECT_FALSE(is_upper("1"));
  EXPECT_FALSE(is_lower("ǅ"));
}

TEST(PythonText, Repr) {
  EXPECT_EQ(repr("it's"), "\"it's\"");
  EXPECT_EQ(repr("'\""), "'\\'\"'");
  EXPECT_EQ(repr("\n\t\\\x01\x7f\u00a0\u200b\U000e0001é中"), "'\\n\\t\\\\\\x01\\x7f\\xa0\\u200b\\U000e0001é中'");
}

TEST(PythonText, Substrings) {
  EXPECT_EQ(substring("é😀x", 1, 3), "😀x");
  EXPECT_EQ(characters("é😀x").size(), 3u);
}

}  // namespace
}  // namespace awq::python
