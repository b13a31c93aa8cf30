#include "text/utf8.h"

#include <gtest/gtest.h>

namespace awq::utf8 {
namespace {

constexpr const char* kBad = "\xEF\xBF\xBD";

TEST(Utf8, EncodesAndReadsEveryCodePoint) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    const std::string s = encode(c);
    size_t pos = 0;
    ASSERT_EQ(next(s, pos), c);
    ASSERT_EQ(pos, s.size());
    ASSERT_EQ(previous(s, pos), c);
    ASSERT_EQ(pos, 0u);
    ASSERT_TRUE(valid(s));
    ASSERT_EQ(length(s), 1u);
  }
}

struct Repair {
  const char* bytes;
  int replaced;  // how many U+FFFD
};

// Unicode 15, chapter 3.9, tables 3-8 to 3-11: one U+FFFD a maximal subpart.
TEST(Utf8, ReplacesMaximalSubparts) {
  const Repair cases[] = {{"\x80", 1},
                          {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82", 8},
                          {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF", 8},
                          {"\xF4\x91\x92\x93\xFF", 5},
                          {"\xE1\x80", 1},
                          {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF", 4},
                          {"\xF0\x9F\x98", 1},
                          {"\xF5", 1}};
  for (const Repair& c : cases) {
    const std::string text = std::string("a") + c.bytes + "b";
    std::string want = "a";
    for (int i = 0; i < c.replaced; ++i) want += kBad;
    EXPECT_EQ(sanitize(text), want + "b");
    EXPECT_FALSE(valid(text));
  }
}

TEST(Utf8, StreamEqualsWholeForEveryCut) {
  const std::string text = "a\xC3\xA9\xF0\x9F\x98\x80\xE1\x80z\xF0\x9F\xC3\x28\xE2\x82";
  for (size_t i = 0; i <= text.size(); ++i)
    for (size_t j = i; j <= text.size(); ++j) {
      Stream s;
      std::string out;
      for (const std::string& part : {text.substr(0, i), text.substr(i, j - i), text.substr(j)}) {
        const std::string got = s.push(part);
        EXPECT_TRUE(valid(got));
        out += got;
      }
      EXPECT_EQ(out + s.flush(), sanitize(text));
    }
}

TEST(Utf8, SpacesAndWords) {
  for (const char32_t c : {0x20, 0x85, 0xA0, 0x1680, 0x2009, 0x3000}) EXPECT_TRUE(is_space(c));
  for (const char32_t c : {0x1C, 0x180E, 0x200B, 0x41}) EXPECT_FALSE(is_space(c));
  for (const char32_t c : {0x41, 0xE9, 0x4E2D, 0x301, 0x39, 0x5F, 0x24B6, 0x200D, 0x2160}) EXPECT_TRUE(is_word(c));
  for (const char32_t c : {0x2D, 0x20, 0x1F600, 0xB2, 0x3002}) EXPECT_FALSE(is_word(c));
}

}  // namespace
}  // namespace awq::utf8
