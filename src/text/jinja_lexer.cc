#include "text/jinja_lexer.h"

#include <algorithm>
#include <array>

#include "base/check.h"
#include "text/python_text.h"
#include "text/utf8.h"

namespace awq::jinja {
namespace {

constexpr size_t kLongest = size_t(1) << 22;  // bytes; the longest published template has 17,000

/// Line ends become \n, and one at the end of the template does not count.
std::string normalized(std::string_view source) {
  std::string out;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out.push_back(source[i]);
      continue;
    }
    out.push_back('\n');
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

/// Line and column of offsets; quick for growing ones.
class Places {
 public:
  explicit Places(std::string_view source) : source_(source) {}
  Position at(size_t offset) {
    if (offset < done_) *this = Places(source_);
    while (done_ < offset) {
      const char32_t c = utf8::next(source_, done_);
      if (c == '\n')
        place_ = {place_.line + 1, 1};
      else
        ++place_.column;
    }
    return place_;
  }

 private:
  std::string_view source_;
  size_t done_ = 0;
  Position place_;
};

constexpr std::array<std::string_view, 6> kLongOperators = {"//", "**", "==", "!=", ">=", "<="};
constexpr std::string_view kOperators = "+-*/%~[](){}|.,:;=<>";

bool is_digit(char c) { return c >= '0' && c <= '9'; }

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source), places_(source_) {}

  std::vector<Token> run() {
    while (pos_ < source_.size()) data();
    push(Token::Kind::end, "", source_.size());
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return source_.substr(pos_); }
  bool at(std::string_view s) const { return rest().starts_with(s); }
  [[noreturn]] void error(size_t offset, std::string_view what) { template_error(places_.at(offset), what); }
  void push(Token::Kind kind, std::string value, size_t offset) {
    tokens_.push_back({kind, std::move(value), places_.at(offset)});
  }

  size_t skip_space(size_t pos) const {
    while (pos < source_.size()) {
      size_t next = pos;
      if (!python::is_space(utf8::next(source_, next))) break;
      pos = next;
    }
    return pos;
  }

  /// Text up to the next tag, then the tag.
  void data() {
    const size_t begin = pos_;
    const size_t tag = find_tag(pos_);
    if (tag == std::string_view::npos) {
      push(Token::Kind::data, std::string(rest()), begin);
      pos_ = source_.size();
      return;
    }
    const char kind = source_[tag + 1];
    pos_ = tag + 2;
    const char sign = take_sign();
    const std::string_view text = before_tag(begin, tag, sign, kind != '{');
    if (!text.empty()) push(Token::Kind::data, std::string(text), begin);
    if (kind == '#') return comment(tag);
    if (kind == '%' && raw(tag)) return;
    push(kind == '{' ? Token::Kind::output_begin : Token::Kind::tag_begin, "", tag);
    inside(kind == '{');
  }

  size_t find_tag(size_t from) const {
    for (size_t at = source_.find('{', from); at != std::string_view::npos; at = source_.find('{', at + 1)) {
      const char next = at + 1 < source_.size() ? source_[at + 1] : '\0';
      if (next == '{' || next == '%' || next == '#') return at;
    }
    return std::string_view::npos;
  }

  char take_sign() {
    const char sign = pos_ < source_.size() ? source_[pos_] : '\0';
    if (sign != '-' && sign != '+') return '\0';
    ++pos_;
    return sign;
  }

  std::string_view before_tag(size_t begin, size_t tag, char sign, bool strips_line) const {
    const std::string_view text = source_.substr(begin, tag - begin);
    if (sign == '-') return python::strip(text, std::nullopt, false, true);
    if (sign == '+' || !strips_line) return text;
    const size_t newline = text.rfind('\n');
    const size_t line = newline == std::string_view::npos ? 0 : newline + 1;
    const bool starts_line = line > 0 || begin == 0 || source_[begin - 1] == '\n';
    const bool blank = python::strip(text.substr(line), std::nullopt, true, false).empty();
    return starts_line && blank ? text.substr(0, line) : text;
  }

  /// Moves behind a tag's end, which is at pos_: a sign before it decides about the white space that follows.
  void behind_end(std::string_view end, char sign, bool trims_newline) {
    pos_ += end.size() + (sign ? 1 : 0);
    if (sign == '-')
      pos_ = skip_space(pos_);
    else if (sign != '+' && trims_newline && at("\n"))
      ++pos_;
  }

  void comment(size_t tag) {
    const size_t end = source_.find("#}", pos_);
    if (end == std::string_view::npos) error(tag, "a comment is not closed");
    const char before = end > pos_ ? source_[end - 1] : '\0';
    const char sign = before == '-' || before == '+' ? before : '\0';
    pos_ = sign ? end - 1 : end;
    behind_end("#}", sign, true);
  }

  /// If `name` and a tag end are at `from`, the offset of the end (or of its sign).
  size_t tag_with(std::string_view name, size_t from) const {
    from = skip_space(from);
    if (!source_.substr(from).starts_with(name)) return std::string_view::npos;
    from = skip_space(from + name.size());
    const std::string_view tail = source_.substr(from);
    return tail.starts_with("%}") || tail.starts_with("-%}") || tail.starts_with("+%}") ? from : std::string_view::npos;
  }

  bool raw(size_t tag) {
    const size_t end = tag_with("raw", pos_);
    if (end == std::string_view::npos || source_[end] == '+') return false;
    pos_ = end;
    behind_end("%}", source_[end] == '-' ? '-' : '\0', false);
    const size_t begin = pos_;
    for (size_t close = source_.find("{%", pos_); close != std::string_view::npos;
         close = source_.find("{%", close + 1)) {
      pos_ = close + 2;
      const char sign = take_sign();
      const size_t close_end = tag_with("endraw", pos_);
      if (close_end == std::string_view::npos) continue;
      const std::string_view text = before_tag(begin, close, sign, true);
      if (!text.empty()) push(Token::Kind::data, std::string(text), begin);
      pos_ = close_end;
      behind_end("%}", source_[close_end] == '%' ? '\0' : source_[close_end], true);
      return true;
    }
    error(tag, "{% raw %} is not closed");
  }

  /// The tokens of one tag, through its end.
  void inside(bool output) {
    const std::string_view end = output ? "}}" : "%}";
    std::string open;  // brackets that wait for their partner; inside them }} is two operators
    while (pos_ < source_.size()) {
      const size_t begin = pos_;
      if (open.empty() && at_end(end, output)) {
        const char sign = at(end) ? '\0' : source_[pos_];
        push(output ? Token::Kind::output_end : Token::Kind::tag_end, "", begin);
        return behind_end(end, sign, !output);
      }
      pos_ = skip_space(pos_);
      if (pos_ == begin) token(open);
    }
    error(source_.size(), output ? "{{ is not closed" : "{% is not closed");
  }

  bool at_end(std::string_view end, bool output) const {
    if (at(end)) return true;
    return rest().substr(1).starts_with(end) && (at("-") || (!output && at("+")));
  }

  void token(std::string& open) {
    const char c = source_[pos_];
    if (is_digit(c)) return number();
    if (c == '"' || c == '\'') return string();
    if (word_length(pos_) > 0) return name();
    op(open);
  }

  size_t word_length(size_t pos) const {
    const size_t begin = pos;
    while (pos < source_.size()) {
      size_t next = pos;
      if (!utf8::is_word(utf8::next(source_, next))) break;
      pos = next;
    }
    return pos - begin;
  }

  void name() {
    const size_t n = word_length(pos_);
    push(Token::Kind::name, std::string(source_.substr(pos_, n)), pos_);
    pos_ += n;
  }

  /// Digits with single underscores between them.
  size_t digits_end(size_t pos, std::string_view digits) const {
    const auto digit_at = [&](size_t i) {
      return i < source_.size() && digits.find(source_[i]) != std::string_view::npos;
    };
    if (!digit_at(pos)) return pos;
    while (digit_at(pos) || (pos < source_.size() && source_[pos] == '_' && digit_at(pos + 1))) ++pos;
    return pos;
  }

  void number() {
    constexpr std::string_view decimal = "0123456789";
    const size_t begin = pos_;
    const size_t whole = digits_end(pos_, decimal);
    size_t end = whole;
    if (begin == 0 || source_[begin - 1] != '.') {  // x.0.1 selects twice
      if (whole + 1 < source_.size() && source_[whole] == '.') {
        const size_t fraction = digits_end(whole + 1, decimal);
        if (fraction > whole + 1) end = fraction;
      }
      end = exponent_end(end);
    }
    if (end == whole) return integer(begin, whole);
    push_number(Token::Kind::real, begin, end);
  }

  size_t exponent_end(size_t pos) const {
    if (pos >= source_.size() || (source_[pos] != 'e' && source_[pos] != 'E')) return pos;
    size_t digits = pos + 1;
    if (digits < source_.size() && (source_[digits] == '+' || source_[digits] == '-')) ++digits;
    const size_t end = digits_end(digits, "0123456789");
    return end > digits ? end : pos;
  }

  void integer(size_t begin, size_t decimal_end) {
    if (source_[begin] != '0') return push_number(Token::Kind::integer, begin, decimal_end);
    const char base = begin + 1 < source_.size() ? static_cast<char>(source_[begin + 1] | 0x20) : '\0';
    if (base == 'x' || base == 'o' || base == 'b') error(begin, "numbers are decimal here");
    const size_t zeros = digits_end(begin, "0");
    if (zeros != decimal_end) error(begin, "a number cannot start with 0");
    push_number(Token::Kind::integer, begin, zeros);
  }

  void push_number(Token::Kind kind, size_t begin, size_t end) {
    std::string digits(source_.substr(begin, end - begin));
    digits.erase(std::remove(digits.begin(), digits.end(), '_'), digits.end());
    push(kind, std::move(digits), begin);
    pos_ = end;
  }

  void string() {
    const size_t begin = pos_;
    const char quote = source_[pos_++];
    while (pos_ < source_.size() && source_[pos_] != quote) pos_ += source_[pos_] == '\\' ? 2 : 1;
    if (pos_ >= source_.size()) error(begin, "a string is not closed");
    push(Token::Kind::text, unescape(source_.substr(begin + 1, pos_ - begin - 1), begin), begin);
    ++pos_;
  }

  /// Python's escapes. As there, a backslash before any other character stays.
  std::string unescape(std::string_view s, size_t offset) {
    std::string out;
    for (size_t i = 0; i < s.size();) {
      if (s[i] != '\\') {
        out.push_back(s[i++]);
        continue;
      }
      const char c = s[i + 1];
      i += 2;
      if (is_digit(c) && c < '8')
        octal(s, --i, out);
      else if (c == 'x' || c == 'u' || c == 'U')
        hexadecimal(s, i, c == 'x' ? 2 : c == 'u' ? 4 : 8, offset, out);
      else if (c == 'N')
        error(offset, "\\N in a string is not implemented");
      else if (static_cast<unsigned char>(c) >= 0x80)
        escaped_character(s, --i, out);
      else
        simple_escape(c, out);
    }
    return out;
  }

  static void simple_escape(char c, std::string& out) {
    constexpr std::string_view names = "abfnrtv\\'\"\n", values = "\a\b\f\n\r\t\v\\'\"";
    const size_t i = names.find(c);
    if (i == std::string_view::npos)
      out.append(1, '\\').append(1, c);
    else if (c != '\n')
      out.push_back(values[i]);
  }

  /// Python writes the character as an escape before it reads escapes, so that the two backslashes make one.
  static void escaped_character(std::string_view s, size_t& i, std::string& out) {
    const auto c = static_cast<uint32_t>(utf8::next(s, i));
    out.append(c < 0x100     ? fmt::format("\\x{:02x}", c)
               : c < 0x10000 ? fmt::format("\\u{:04x}", c)
                             : fmt::format("\\U{:08x}", c));
  }

  static void octal(std::string_view s, size_t& i, std::string& out) {
    char32_t c = 0;
    for (int n = 0; n < 3 && i < s.size() && s[i] >= '0' && s[i] <= '7'; ++n)
      c = c * 8 + static_cast<char32_t>(s[i++] - '0');
    utf8::append(out, c);
  }

  void hexadecimal(std::string_view s, size_t& i, size_t digits, size_t offset, std::string& out) {
    const std::string hex(s.substr(std::min(i, s.size()), digits));
    if (hex.size() < digits || hex.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos)
      error(offset, "an escape in a string lacks hexadecimal digits");
    const unsigned long c = std::stoul(hex, nullptr, 16);
    if (c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) error(offset, "an escape in a string is no character");
    utf8::append(out, static_cast<char32_t>(c));
    i += digits;
  }

  void op(std::string& open) {
    const size_t begin = pos_;
    const auto longer =
        std::find_if(kLongOperators.begin(), kLongOperators.end(), [&](std::string_view o) { return at(o); });
    const std::string value(longer != kLongOperators.end() ? *longer : rest().substr(0, 1));
    if (value.size() == 1 && kOperators.find(value) == std::string_view::npos)
      error(begin, "a character that no expression has");
    if (value == "(" || value == "[" || value == "{") open.push_back(value == "(" ? ')' : value == "[" ? ']' : '}');
    if (value == ")" || value == "]" || value == "}") {
      if (open.empty() || open.back() != value[0]) error(begin, "a closing bracket without its partner");
      open.pop_back();
    }
    push(Token::Kind::op, value, begin);
    pos_ += value.size();
  }

  std::string_view source_;
  Places places_;
  size_t pos_ = 0;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> lex(std::string_view source) {
  if (source.size() > kLongest)
    fail("chat template", "the template has {} bytes; at most {} are read", source.size(), kLongest);
  if (!utf8::valid(source)) fail("chat template", "the template is not valid UTF-8");
  const std::string text = normalized(source);
  return Lexer(text).run();
}

void template_error(Position at, std::string_view what) {
  fail("chat template", "line {}, column {}: {}", at.line, at.column, what);
}

}  // namespace awq::jinja
