#include "text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <cctype>
#include <iterator>
#include <vector>

#include "base/check.h"
#include "text/utf8.h"

namespace awq {
namespace {

using CodePoints = std::vector<utf8proc_int32_t>;

utf8proc_propval_t combining_class(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

CodePoints decompose(std::string_view text, int options) {
  CodePoints out;
  out.reserve(text.size() + 64);
  utf8proc_int32_t buffer[64];  // the longest decomposition has 18 code points
  int boundary = 0;
  for (size_t pos = 0; pos < text.size();) {
    const auto c = static_cast<utf8proc_int32_t>(utf8::next(text, pos));
    const utf8proc_ssize_t n =
        utf8proc_decompose_char(c, buffer, 64, static_cast<utf8proc_option_t>(options), &boundary);
    if (n < 0 || n > 64) fail("tokenizer", "U+{:04X} cannot be normalized: {}", c, utf8proc_errmsg(n));
    out.insert(out.end(), buffer, buffer + n);
  }
  return out;
}

// utf8proc_decompose sorts by swapping neighbours, which takes quadratic time on long runs of marks.
void order_marks(CodePoints& text) {
  const auto is_mark = [](utf8proc_int32_t c) { return combining_class(c) != 0; };
  for (auto begin = text.begin(); begin != text.end();) {
    begin = std::find_if(begin, text.end(), is_mark);
    const auto end = std::find_if_not(begin, text.end(), is_mark);
    std::stable_sort(begin, end, [](auto a, auto b) { return combining_class(a) < combining_class(b); });
    begin = end;
  }
}

utf8proc_category_t category_of(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

}  // namespace

namespace {

void append_normalized(std::string_view text, UnicodeForm form, std::string& out) {
  const bool compatible = form == UnicodeForm::nfkc || form == UnicodeForm::nfkd;
  const bool compose = form == UnicodeForm::nfc || form == UnicodeForm::nfkc;
  CodePoints points = decompose(text, UTF8PROC_DECOMPOSE | UTF8PROC_STABLE | (compatible ? UTF8PROC_COMPAT : 0));
  order_marks(points);
  auto n = static_cast<utf8proc_ssize_t>(points.size());
  if (compose)
    n = utf8proc_normalize_utf32(points.data(), n, static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  for (utf8proc_ssize_t i = 0; i < n; ++i) utf8::append(out, static_cast<char32_t>(points[size_t(i)]));
}

}  // namespace

// ASCII is normal in every form, and what follows can change its last character only.
std::string normalize(std::string_view text, UnicodeForm form) {
  const auto is_ascii = [&](size_t at) { return static_cast<unsigned char>(text[at]) < 0x80; };
  std::string out;
  out.reserve(text.size());
  for (size_t begin = 0; begin < text.size();) {
    size_t end = utf8::skip_ascii(text, begin);
    if (end < text.size() && end > begin) --end;
    out.append(text.substr(begin, end - begin));
    begin = end;
    if (begin == text.size()) break;
    if (is_ascii(end)) ++end;
    while (end < text.size() && !is_ascii(end)) ++end;
    append_normalized(text.substr(begin, end - begin), form, out);
    begin = end;
  }
  return out;
}

std::string lowercase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = utf8::next(text, pos);
    if (c == 0x130)
      out.append("i\xCC\x87");  // the one letter whose lower case is two code points
    else
      utf8::append(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
  }
  return out;
}

bool is_mark(char32_t c) {
  const auto category = category_of(c);
  return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC || category == UTF8PROC_CATEGORY_ME;
}

bool is_nonspacing_mark(char32_t c) { return category_of(c) == UTF8PROC_CATEGORY_MN; }

bool is_control(char32_t c) {
  const auto category = category_of(c);
  return category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CF || category == UTF8PROC_CATEGORY_CO;
}

// Found by asking the tokenizers library for every code point.
bool is_punctuation(char32_t c) {
  struct Range {
    char32_t first, last;
  };
  constexpr Range since_unicode_8[] = {
      {0x61D, 0x61D},     {0x9FD, 0x9FD},     {0xA76, 0xA76},     {0xC77, 0xC77},     {0xC84, 0xC84},
      {0x1B7D, 0x1B7E},   {0x2E43, 0x2E4F},   {0x2E52, 0x2E5D},   {0x10EAD, 0x10EAD}, {0x10F55, 0x10F59},
      {0x10F86, 0x10F89}, {0x1144B, 0x1144F}, {0x1145A, 0x1145B}, {0x1145D, 0x1145D}, {0x11660, 0x1166C},
      {0x116B9, 0x116B9}, {0x1183B, 0x1183B}, {0x11944, 0x11946}, {0x119E2, 0x119E2}, {0x11A3F, 0x11A46},
      {0x11A9A, 0x11A9C}, {0x11A9E, 0x11AA2}, {0x11C41, 0x11C45}, {0x11C70, 0x11C71}, {0x11EF7, 0x11EF8},
      {0x11FFF, 0x11FFF}, {0x12FF1, 0x12FF2}, {0x16E97, 0x16E9A}, {0x16FE2, 0x16FE2}, {0x1E95E, 0x1E95F}};
  if (c < 0x80) return std::ispunct(static_cast<int>(c)) != 0;
  if (c == 0x166D || c == 0x111C9) return true;  // symbols since
  const auto category = category_of(c);
  return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO &&
         std::none_of(std::begin(since_unicode_8), std::end(since_unicode_8),
                      [c](const Range& r) { return c >= r.first && c <= r.last; });
}

size_t grapheme_end(std::string_view text, size_t pos) {
  utf8proc_int32_t state = 0;
  auto before = static_cast<utf8proc_int32_t>(utf8::next(text, pos));
  while (pos < text.size()) {
    size_t behind = pos;
    const auto c = static_cast<utf8proc_int32_t>(utf8::next(text, behind));
    if (utf8proc_grapheme_break_stateful(before, c, &state)) break;
    before = c;
    pos = behind;
  }
  return pos;
}

}  // namespace awq
