#include "text/regex.h"

#include <gtest/gtest.h>

#include "awq/error.h"

namespace awq {
namespace {

std::vector<std::string> matches(std::string_view pattern, std::string_view text) {
  std::vector<std::string> out;
  for (const auto& [begin, end] : Regex(pattern).find_all(text)) out.emplace_back(text.substr(begin, end - begin));
  return out;
}
using Texts = std::vector<std::string>;

TEST(Regex, FindsFromLeftToRight) {
  EXPECT_EQ(matches("a+", "aabaac"), (Texts{"aa", "aa"}));
  EXPECT_EQ(matches(R"( ?\p{L}+)", "Hé llo 中"), (Texts{"Hé", " llo", " 中"}));
  EXPECT_EQ(matches("x", ""), Texts{});
}

// Oniguruma's iterator: an empty match counts unless it touches the match before it.
TEST(Regex, EmptyMatches) {
  const auto at = Regex("(?=b)|a*").find_all("aab");
  ASSERT_EQ(at.size(), 2u);
  EXPECT_EQ(at[0], (Regex::Range{0, 2}));
  EXPECT_EQ(at[1], (Regex::Range{3, 3}));
  EXPECT_EQ(Regex("").find_all("é").size(), 2u);
}

TEST(Regex, ReadsRubySyntax) {
  EXPECT_EQ(matches(R"(\h+)", "xBEEF-09"), (Texts{"BEEF", "09"}));  // hexadecimal digits, not blanks
  EXPECT_EQ(matches(R"(\p{N}{1,3}+)", "12345"), (Texts{"12345"}));  // repeated, not possessive
  EXPECT_EQ(matches(R"((?:ab){1,2}+c)", "ababababc"), (Texts{"ababababc"}));
  EXPECT_EQ(matches("^b$", "a\nb\nc"), (Texts{"b"}));      // anchors match at every line
  EXPECT_EQ(matches("[a[bc]]+", "abcd"), (Texts{"abc"}));  // a class in a class is a union
  EXPECT_EQ(matches(R"([^(\s|[.,])]+)", "a.b(c d"), (Texts{"a", "b", "c", "d"}));
  EXPECT_EQ(matches(R"(\u4e2d|\x41)", "A中B"), (Texts{"A", "中"}));
  EXPECT_EQ(matches("a{,b{c", "a{,b{c"), (Texts{"a{,b{c"}));
  EXPECT_EQ(matches(R"((?i:'s|'t))", "'S 'ſ 't"), (Texts{"'S", "'ſ", "'t"}));
  EXPECT_EQ(matches(R"(\p{^L}+|\P{^N})", "a1-"), (Texts{"1-"}));
}

// Where PCRE2's own classes differ: it counts U+180E as a blank and no mark as part of a word.
TEST(Regex, ClassesAreUnicodes) {
  EXPECT_EQ(matches(R"(\s)", "\u180e\u3000\u0085\u200b"), (Texts{"\u3000", "\u0085"}));
  EXPECT_EQ(matches(R"(\S)", "\u180e\u3000"), (Texts{"\u180e"}));
  EXPECT_EQ(matches(R"([^\S]+)", "a \u3000\u180e"), (Texts{" \u3000"}));
  EXPECT_EQ(matches(R"(\w+)", "e\u0301\u203f\u24b6²½ ↉"), (Texts{"e\u0301\u203f\u24b6²½"}));
  EXPECT_EQ(matches(R"(\p{Han}+)", "中〆。"), (Texts{"中"}));  // by script, not by script extensions
}

TEST(Regex, RefusesWhatItCannotRewrite) {
  for (const char* p :
       {"[a&&b]",        "[[:alpha:]]", "[a[^b]]", R"([\W])",      R"(\b)",   R"(\K)",      R"(\Ga)",  R"((?m:.))",
        R"((?<name>a))", R"(a(?i)b)",   "(?R)",    R"((*ACCEPT))", R"(\p{L)", R"(\p{L_1})", R"(\x80)", R"(\u12)",
        "a{,3}",         "a{2}?",       "[a",      "(a",           "a)",      "a\\",        "\xFF",    R"(\p{Nope})"})
    EXPECT_THROW(Regex{p}, Error) << p;
}

TEST(Regex, HostilePatternGivesUp) {
  const std::string text = std::string(2000, 'a') + "b.";
  EXPECT_THROW(Regex(R"((a+)+\.)").find_all(text), Error);
  EXPECT_THROW(Regex(std::string(70000, 'a')), Error);
  EXPECT_THROW(Regex(std::string(500, '(') + std::string(500, ')')), Error);
}

TEST(Regex, LongRunsAreLinear) {
  const std::string spaces(1000000, ' ');
  EXPECT_EQ(Regex(R"(\s*[\r\n]+|\s+(?!\S)|\s+)").find_all(spaces).size(), 1u);
}

}  // namespace
}  // namespace awq
