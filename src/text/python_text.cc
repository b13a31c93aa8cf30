#include "text/python_text.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>

#include "text/unicode.h"
#include "text/utf8.h"

namespace awq::python {
namespace {

int category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

bool is_cased_letter(char32_t c) {
  const int k = category(c);
  return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT;
}

bool holds(std::string_view set, std::string_view character) { return set.find(character) != std::string_view::npos; }

std::string_view next_character(std::string_view s, size_t pos) {
  size_t end = pos;
  utf8::next(s, end);
  return s.substr(pos, end - pos);
}

std::string_view last_character(std::string_view s) {
  size_t begin = s.size();
  utf8::previous(s, begin);
  return s.substr(begin);
}

bool stripped(std::optional<std::string_view> set, std::string_view character) {
  if (set) return holds(*set, character);
  size_t pos = 0;
  return is_space(utf8::next(character, pos));
}

/// Letters such as "ß" whose upper case is several characters: Unicode gives it as the upper case of their case
/// folding.
std::string folded(char32_t c) {
  utf8proc_int32_t buffer[8];
  int boundary = 0;
  const auto n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), buffer, 8, UTF8PROC_CASEFOLD, &boundary);
  std::string out;
  for (utf8proc_ssize_t i = 0; n > 1 && n <= 8 && i < n; ++i) utf8::append(out, static_cast<char32_t>(buffer[i]));
  return out;
}

bool is_upper_itself(char32_t c) { return c == 0x130 || c == 0x1E9E; }  // capital letters that fold to two characters
char32_t simple_upper(char32_t c) { return static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))); }
char32_t simple_title(char32_t c) { return static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c))); }

void append_upper(std::string& out, char32_t c) {
  const std::string parts = c < 0x80 || is_upper_itself(c) ? std::string() : folded(c);
  if (parts.empty()) return utf8::append(out, simple_upper(c));
  for (size_t pos = 0; pos < parts.size();) utf8::append(out, simple_upper(utf8::next(parts, pos)));
}

void append_title(std::string& out, char32_t c) {
  constexpr char32_t sharp_s = 0xDF;  // its simple title case, U+1E9E, is not what Unicode's full mapping says
  const bool simple =
      c < 0x80 || is_upper_itself(c) || (simple_title(c) != c && c != sharp_s) || category(c) == UTF8PROC_CATEGORY_LT;
  const std::string parts = simple ? std::string() : folded(c);
  if (parts.empty()) return utf8::append(out, simple_title(c));
  size_t pos = 0;
  utf8::append(out, simple_title(utf8::next(parts, pos)));
  out.append(parts, pos);
}

/// Some letter is `wanted` and none is `other` or title case.
bool all_cased(std::string_view s, int (*wanted)(utf8proc_int32_t), int (*other)(utf8proc_int32_t)) {
  bool found = false;
  for (size_t pos = 0; pos < s.size();) {
    const char32_t c = utf8::next(s, pos);
    if (category(c) == UTF8PROC_CATEGORY_LT || other(static_cast<utf8proc_int32_t>(c))) return false;
    found = found || wanted(static_cast<utf8proc_int32_t>(c));
  }
  return found;
}

bool is_line_end(char32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

}  // namespace

bool is_space(char32_t c) { return utf8::is_space(c) || (c >= 0x1C && c <= 0x1F); }

bool is_printable(char32_t c) {
  switch (category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    case UTF8PROC_CATEGORY_ZS:
      return c == ' ';
    default:
      return true;
  }
}

std::vector<std::string_view> characters(std::string_view s) {
  std::vector<std::string_view> out;
  for (size_t pos = 0; pos < s.size(); pos += out.back().size()) out.push_back(next_character(s, pos));
  return out;
}

std::string_view substring(std::string_view s, int64_t begin, int64_t end) {
  size_t pos = 0;
  for (int64_t i = 0; i < begin; ++i) utf8::next(s, pos);
  const size_t from = pos;
  for (int64_t i = begin; i < end; ++i) utf8::next(s, pos);
  return s.substr(from, pos - from);
}

std::string_view strip(std::string_view s, std::optional<std::string_view> set, bool left, bool right) {
  while (left && !s.empty() && stripped(set, next_character(s, 0))) s.remove_prefix(next_character(s, 0).size());
  while (right && !s.empty() && stripped(set, last_character(s))) s.remove_suffix(last_character(s).size());
  return s;
}

std::vector<std::string_view> split(std::string_view s, std::string_view separator, int64_t limit) {
  std::vector<std::string_view> out;
  for (size_t at; limit-- != 0 && (at = s.find(separator)) != std::string_view::npos;
       s.remove_prefix(at + separator.size()))
    out.push_back(s.substr(0, at));
  out.push_back(s);
  return out;
}

std::vector<std::string_view> rsplit(std::string_view s, std::string_view separator, int64_t limit) {
  std::vector<std::string_view> out;
  for (size_t at; limit-- != 0 && (at = s.rfind(separator)) != std::string_view::npos; s = s.substr(0, at))
    out.push_back(s.substr(at + separator.size()));
  out.push_back(s);
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<std::string_view> split_spaces(std::string_view s, int64_t limit) {
  std::vector<std::string_view> out;
  for (s = strip(s, std::nullopt, true, false); !s.empty(); s = strip(s, std::nullopt, true, false)) {
    size_t end = 0;
    while (end < s.size() && !stripped(std::nullopt, next_character(s, end))) end += next_character(s, end).size();
    if (limit-- == 0) {
      out.push_back(s);
      break;
    }
    out.push_back(s.substr(0, end));
    s.remove_prefix(end);
  }
  return out;
}

std::vector<std::string_view> rsplit_spaces(std::string_view s, int64_t limit) {
  std::vector<std::string_view> out;
  for (s = strip(s, std::nullopt, false, true); !s.empty(); s = strip(s, std::nullopt, false, true)) {
    size_t begin = s.size();
    while (begin > 0 && !stripped(std::nullopt, last_character(s.substr(0, begin))))
      begin -= last_character(s.substr(0, begin)).size();
    if (limit-- == 0) {
      out.push_back(s);
      break;
    }
    out.push_back(s.substr(begin));
    s = s.substr(0, begin);
  }
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<std::string_view> split_lines(std::string_view s, bool keep_ends) {
  std::vector<std::string_view> out;
  size_t begin = 0;
  for (size_t pos = 0; pos < s.size();) {
    const size_t end = pos;
    const char32_t c = utf8::next(s, pos);
    if (!is_line_end(c)) continue;
    if (c == '\r' && s.substr(pos).starts_with('\n')) ++pos;
    out.push_back(s.substr(begin, (keep_ends ? pos : end) - begin));
    begin = pos;
  }
  if (begin < s.size()) out.push_back(s.substr(begin));
  return out;
}

std::vector<std::string_view> around(std::string_view s, std::string_view from, int64_t limit) {
  if (!from.empty()) return split(s, from, limit);
  std::vector<std::string_view> out;  // an empty text is found before, between and behind all characters
  size_t begin = 0;
  for (size_t end = 0; limit-- != 0 && end <= s.size();) {
    out.push_back(s.substr(begin, end - begin));
    begin = end;
    end += end < s.size() ? next_character(s, end).size() : 1;
  }
  out.push_back(s.substr(begin));
  return out;
}

std::string replace(std::string_view s, std::string_view from, std::string_view to, int64_t limit) {
  return fmt::format("{}", fmt::join(around(s, from, limit), to));
}

int64_t count(std::string_view s, std::string_view part) {
  if (part.empty()) return static_cast<int64_t>(utf8::length(s)) + 1;
  return static_cast<int64_t>(split(s, part, -1).size()) - 1;
}

std::string upper(std::string_view s) {
  std::string out;
  for (size_t pos = 0; pos < s.size();) append_upper(out, utf8::next(s, pos));
  return out;
}

std::string lower(std::string_view s) { return lowercase(s); }

std::string capitalize(std::string_view s) {
  std::string out;
  size_t pos = 0;
  if (!s.empty()) append_title(out, utf8::next(s, pos));
  return out.append(lower(s.substr(pos)));
}

std::string title(std::string_view s) {
  std::string out;
  bool inside = false;
  for (size_t pos = 0; pos < s.size();) {
    const std::string_view character = next_character(s, pos);
    const char32_t c = utf8::next(s, pos);
    if (inside)
      out.append(lower(character));
    else
      append_title(out, c);
    inside = is_cased_letter(c);
  }
  return out;
}

bool is_upper(std::string_view s) { return all_cased(s, utf8proc_isupper, utf8proc_islower); }
bool is_lower(std::string_view s) { return all_cased(s, utf8proc_islower, utf8proc_isupper); }

bool all_of_category(std::string_view s, bool (*member)(char32_t)) {
  for (size_t pos = 0; pos < s.size();)
    if (!member(utf8::next(s, pos))) return false;
  return !s.empty();
}

bool is_letter(char32_t c) {
  const int k = category(c);
  return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT ||
         k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_LO;
}

bool is_decimal(char32_t c) { return category(c) == UTF8PROC_CATEGORY_ND; }

std::string repr(std::string_view s) {
  const char quote = holds(s, "'") && !holds(s, "\"") ? '"' : '\'';
  std::string out(1, quote);
  for (size_t pos = 0; pos < s.size();) {
    const char32_t c = utf8::next(s, pos);
    if (c == static_cast<char32_t>(quote) || c == '\\')
      out.append(1, '\\').append(1, static_cast<char>(c));
    else if (c == '\n')
      out.append("\\n");
    else if (c == '\r')
      out.append("\\r");
    else if (c == '\t')
      out.append("\\t");
    else if (is_printable(c))
      utf8::append(out, c);
    else if (c < 0x100)
      out.append(fmt::format("\\x{:02x}", static_cast<uint32_t>(c)));
    else if (c < 0x10000)
      out.append(fmt::format("\\u{:04x}", static_cast<uint32_t>(c)));
    else
      out.append(fmt::format("\\U{:08x}", static_cast<uint32_t>(c)));
  }
  return out.append(1, quote);
}

std::string escape_html(std::string_view s) {
  std::string out;
  for (const char c : s) {
    switch (c) {
      case '&':
        out.append("&amp;");
        break;
      case '<':
        out.append("&lt;");
        break;
      case '>':
        out.append("&gt;");
        break;
      case '"':
        out.append("&#34;");
        break;
      case '\'':
        out.append("&#39;");
        break;
      default:
        out.push_back(c);
    }
  }
  return out;
}

}  // namespace awq::python
