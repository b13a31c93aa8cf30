#include "text/json_scanner.h"

#include <charconv>

#include "base/check.h"
#include "text/utf8.h"

namespace awq {
namespace {

bool is_plain(char c) { return static_cast<unsigned char>(c) >= 0x20 && c != '"' && c != '\\'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

void JsonScanner::bad(std::string_view expected) const {
  fail("tokenizer", "tokenizer.json, byte {}: expected {}; the file is damaged, download it again", at_, expected);
}

char JsonScanner::peek() {
  while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t'))
    ++at_;
  return at_ < text_.size() ? text_[at_] : '\0';
}

bool JsonScanner::take(char c) {
  if (peek() != c || at_ == text_.size()) return false;
  ++at_;
  return true;
}

void JsonScanner::expect(char c) {
  if (!take(c)) bad(std::string_view(&c, 1));
}

std::string_view JsonScanner::string() {
  expect('"');
  const size_t begin = at_;
  while (at_ < text_.size() && is_plain(text_[at_])) ++at_;
  if (at_ < text_.size() && text_[at_] == '\\') return unescape(begin);
  if (at_ == text_.size() || text_[at_] != '"') bad("the end of a string");
  const std::string_view s = text_.substr(begin, at_++ - begin);
  if (!utf8::valid(s)) bad("valid UTF-8 before it");
  return s;
}

std::string_view JsonScanner::unescape(size_t begin) {
  std::string& out = unescaped_.emplace_back(text_.substr(begin, at_ - begin));
  constexpr std::string_view names = "\"\\/bfnrt", characters = "\"\\/\b\f\n\r\t";
  for (;; ++at_) {
    if (at_ == text_.size()) bad("the end of a string");
    if (text_[at_] == '"') break;
    if (is_plain(text_[at_])) {
      out.push_back(text_[at_]);
      continue;
    }
    if (text_[at_] != '\\' || ++at_ == text_.size()) bad("an escape instead of a control character");
    if (const size_t i = names.find(text_[at_]); i != names.npos) {
      out.push_back(characters[i]);
    } else if (text_[at_] == 'u') {
      char32_t c = hex4();
      if (c >= 0xD800 && c < 0xDC00 && text_.substr(at_ + 1, 2) == "\\u") {
        at_ += 2;
        const char32_t low = hex4();
        c = low >= 0xDC00 && low < 0xE000 ? 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00) : 0xD800;
      }
      if (c >= 0xD800 && c < 0xE000) bad("a whole surrogate pair");
      utf8::append(out, c);
    } else {
      bad("an escape of JSON");
    }
  }
  if (!utf8::valid(out)) bad("valid UTF-8 before it");
  ++at_;
  return out;
}

/// The digits behind \u; stays on the last one.
char32_t JsonScanner::hex4() {
  uint32_t value = 0;
  const std::string_view digits = text_.substr(std::min(at_ + 1, text_.size()), 4);
  const auto end = digits.data() + digits.size();
  if (digits.size() < 4 || std::from_chars(digits.data(), end, value, 16).ptr != end) bad("four digits behind \\u");
  at_ += 4;
  return value;
}

std::string_view JsonScanner::number_text() {
  peek();
  const size_t begin = at_;
  if (at_ < text_.size() && text_[at_] == '-') ++at_;
  const size_t digits = at_;
  const auto skip_digits = [&] {
    const size_t first = at_;
    while (at_ < text_.size() && is_digit(text_[at_])) ++at_;
    if (at_ == first) bad("a number");
  };
  skip_digits();
  if (text_[digits] == '0' && at_ > digits + 1) bad("a number without leading zeros");
  if (at_ < text_.size() && text_[at_] == '.') {
    ++at_;
    skip_digits();
  }
  if (at_ < text_.size() && (text_[at_] == 'e' || text_[at_] == 'E')) {
    ++at_;
    if (at_ < text_.size() && (text_[at_] == '+' || text_[at_] == '-')) ++at_;
    skip_digits();
  }
  return text_.substr(begin, at_ - begin);
}

int64_t JsonScanner::integer() {
  const std::string_view s = number_text();
  int64_t value = 0;
  const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), value);
  if (error != std::errc() || end != s.data() + s.size()) bad("a whole number before it");
  return value;
}

double JsonScanner::number() {
  const std::string_view s = number_text();
  double value = 0;
  if (std::from_chars(s.data(), s.data() + s.size(), value).ec != std::errc()) bad("a number that a double can hold");
  return value;
}

void JsonScanner::skip_string() {
  ++at_;
  while (at_ < text_.size() && text_[at_] != '"') at_ += text_[at_] == '\\' ? 2 : 1;
  if (at_ >= text_.size()) bad("the end of a string");
  ++at_;
}

void JsonScanner::skip_value() {
  size_t depth = 0;
  do {
    const char c = peek();
    if (at_ == text_.size()) bad("more of the value");
    if (c == '"') {
      skip_string();
      continue;
    }
    if (c == '{' || c == '[') ++depth;
    if (c == '}' || c == ']') {
      if (depth == 0) bad("a value");
      --depth;
    }
    ++at_;
    // A scalar: to its end.
    if (depth == 0 && c != '}' && c != ']')
      while (at_ < text_.size() && std::string_view(",]} \n\r\t").find(text_[at_]) == std::string_view::npos) ++at_;
  } while (depth > 0);
}

}  // namespace awq
