#include "text/unicode.h"

#include <gtest/gtest.h>

namespace awq {
namespace {

// Values from the Unicode Character Database's NormalizationTest.txt.
TEST(Unicode, Forms) {
  EXPECT_EQ(normalize("e\u0301", UnicodeForm::nfc), "\u00e9");
  EXPECT_EQ(normalize("\u00e9", UnicodeForm::nfd), "e\u0301");
  EXPECT_EQ(normalize("\u1e9b\u0323", UnicodeForm::nfc), "\u1e9b\u0323");
  EXPECT_EQ(normalize("\u1e9b\u0323", UnicodeForm::nfd), "\u017f\u0323\u0307");
  EXPECT_EQ(normalize("\u1e9b\u0323", UnicodeForm::nfkc), "\u1e69");
  EXPECT_EQ(normalize("\u1e9b\u0323", UnicodeForm::nfkd), "s\u0323\u0307");
  EXPECT_EQ(normalize("\uac00\u11a8", UnicodeForm::nfc), "\uac01");
  EXPECT_EQ(normalize("\u0958", UnicodeForm::nfc), "\u0915\u093c");  // excluded from composition
  EXPECT_EQ(normalize("a\u0315\u0300\u05ae\u0062", UnicodeForm::nfd), "a\u05ae\u0300\u0315b");
  EXPECT_EQ(normalize("plain", UnicodeForm::nfc), "plain");
}

// 200,000 marks in the worst order for an insertion sort; sorting by swaps would take hours.
TEST(Unicode, LongRunsOfMarksAreSortedInTime) {
  std::string high, low;
  for (int i = 0; i < 100000; ++i) {
    high += "\u0301";  // class 230
    low += "\u0323";   // class 220
  }
  EXPECT_EQ(normalize(high + low, UnicodeForm::nfd), low + high);
}

TEST(Unicode, Lowercase) {
  EXPECT_EQ(lowercase("ÀB\u0130Σ"), "àbi\u0307σ");
  EXPECT_EQ(lowercase("ß中😀"), "ß中😀");
}

TEST(Unicode, PunctuationIsThatOfTheLibrary) {
  for (const char32_t c : {0x21, 0x2B, 0x7E, 0xA1, 0x3001, 0x166D}) EXPECT_TRUE(is_punctuation(c)) << uint32_t(c);
  for (const char32_t c : {0x20, 0x61, 0xA2, 0x20AC, 0xA76, 0x2E45, 0x2E5D})
    EXPECT_FALSE(is_punctuation(c)) << uint32_t(c);
}

}  // namespace
}  // namespace awq
