#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/regex.h"

#include <pcre2.h>

#include <algorithm>

#include "base/check.h"
#include "text/utf8.h"

namespace awq {
namespace {

// What Oniguruma's classes hold, spelled so that it may stand inside [...]. PCRE2's own \s counts U+180E, its \w lacks
// marks, connectors and the letters among symbols.
constexpr std::string_view kSpace =
    R"(\x09-\x0d\x20\x85\xa0\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kNotSpace =
    R"(\x00-\x08\x0e-\x1f\x21-\x84\x86-\x9f\xa1-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e})"
    R"(\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
constexpr std::string_view kWord =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\xb2\xb3\xb9\xbc-\xbe\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189})";
constexpr std::string_view kHex = "0-9a-fA-F";

/// Rewrites a pattern from left to right. What it does not know to mean the same in PCRE2 it refuses.
class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  std::string run() {
    if (at("(?i)")) {  // elsewhere it would reach over the alternatives in Ruby only
      out_ = "(?i)";
      pos_ = 4;
    }
    while (pos_ < in_.size()) step();
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    fail("tokenizer", "the pattern \"{}\" uses {}, which is not implemented", in_, what);
  }

  bool at(std::string_view s) const { return in_.substr(pos_, s.size()) == s; }

  void step() {
    switch (in_[pos_]) {
      case '\\':
        return atom([&] { escape(false); });
      case '[':
        return atom([&] { bracket(); });
      case '(':
        return open_group();
      case ')':
        return close_group();
      case '{':
        return interval();
      case '*':
      case '+':
      case '?':
      case '|':
      case '^':
      case '$':
        out_.push_back(in_[pos_++]);
        return;
      default:
        return atom([&] { copy_character(); });
    }
  }

  template <class F>
  void atom(F&& f) {
    atom_ = out_.size();
    f();
  }

  void copy_character() {
    const size_t begin = pos_;
    utf8::next(in_, pos_);
    out_.append(in_.substr(begin, pos_ - begin));
  }

  void open_group() {
    groups_.push_back(out_.size());
    if (at("(?m")) refuse("the option (?m)");  // dot matches newline in Ruby, anchors match at lines in PCRE2
    for (const std::string_view known : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:"}) {
      if (!at(known)) continue;
      out_.append(known);
      pos_ += known.size();
      return;
    }
    if (at("(?") || at("(*")) refuse(in_.substr(pos_, 4));
    out_.push_back('(');
    ++pos_;
  }

  void close_group() {
    out_.push_back(')');
    ++pos_;
    if (groups_.empty()) refuse("a closing parenthesis without an opening one");
    atom_ = groups_.back();
    groups_.pop_back();
  }

  // In Ruby x{1,3}+ repeats the repetition; in PCRE2 it would be possessive.
  void interval() {
    const size_t close = in_.find('}', pos_);
    const std::string_view body = close == std::string_view::npos ? "" : in_.substr(pos_ + 1, close - pos_ - 1);
    const bool quantifier =
        !body.empty() && body.find_first_not_of("0123456789,") == std::string_view::npos && body != ",";
    if (!quantifier) {
      atom([&] { out_.append("\\{"); });
      ++pos_;
      return;
    }
    if (body.front() == ',') refuse("a repetition without a lower bound");
    out_.append(in_.substr(pos_, close + 1 - pos_));
    pos_ = close + 1;
    if (at("?") && body.find(',') == std::string_view::npos) refuse("{n}?");
    if (!at("+") && !at("*")) return;
    out_.insert(atom_, "(?:");
    out_.push_back(')');
  }

  void bracket() {
    out_.push_back('[');
    ++pos_;
    if (at("^")) {
      out_.push_back('^');
      ++pos_;
    }
    if (at("]")) {
      out_.append("\\]");
      ++pos_;
    }
    class_body();
    out_.push_back(']');
  }

  // A class inside a class is a union in Ruby and four characters in PCRE2: its members are spliced in.
  void class_body() {
    if (++nesting_ > 8) refuse("classes nested too deeply");
    while (!at("]")) {
      if (pos_ >= in_.size()) refuse("a character class that is not closed");
      if (at("&&")) refuse("an intersection of classes (&&)");
      if (at("[:")) refuse("a POSIX class ([:name:])");
      if (at("[^")) refuse("a negated class inside a class");
      if (at("[")) {
        ++pos_;
        class_body();
      } else if (at("\\")) {
        escape(true);
      } else {
        copy_character();
      }
    }
    ++pos_;
    --nesting_;
  }

  void escape(bool in_class) {
    if (pos_ + 1 >= in_.size()) refuse("a backslash at its end");
    const char c = in_[pos_ + 1];
    pos_ += 2;
    switch (c) {
      case 's':
        return members(kSpace, false, in_class);
      case 'S':
        return in_class ? members(kNotSpace, false, true) : members(kSpace, true, false);
      case 'w':
        return members(kWord, false, in_class);
      case 'h':
        return members(kHex, false, in_class);
      case 'W':
      case 'H':
        if (in_class) refuse("\\W or \\H inside a class");
        return members(c == 'W' ? kWord : kHex, true, false);
      case 'p':
      case 'P':
        return property(c);
      case 'u':
        return code_point(4);
      case 'x':
        return code_point(2);
      case 'd':
      case 'D':
      case 'n':
      case 'r':
      case 't':
      case 'f':
        break;
      case 'A':
      case 'z':
        if (in_class) refuse("an anchor inside a class");
        break;
      default:
        if (static_cast<unsigned char>(c) >= 0x80 || std::isalnum(static_cast<unsigned char>(c)))
          refuse(std::string("\\") + c);
    }
    out_.push_back('\\');
    out_.push_back(c);
  }

  void members(std::string_view set, bool negated, bool in_class) {
    if (!in_class) out_.append(negated ? "[^" : "[");
    out_.append(set);
    if (!in_class) out_.push_back(']');
  }

  void property(char p) {
    const size_t close = in_.find('}', pos_);
    if (!at("{") || close == std::string_view::npos) refuse("\\p without {name}");
    std::string_view name = in_.substr(pos_ + 1, close - pos_ - 1);
    pos_ = close + 1;
    const bool negated = name.starts_with('^');
    if (negated) name.remove_prefix(1);
    if (name.empty() ||
        !std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isalpha(c) || c == '_'; }))
      refuse("a property this version does not know");
    out_.append(negated == (p == 'P') ? "\\p{" : "\\P{");
    if (name.size() > 2) out_.append("sc:");  // a script; PCRE2's bare name means its extensions too
    out_.append(name);
    out_.push_back('}');
  }

  void code_point(size_t digits) {
    const std::string_view hex = in_.substr(pos_, digits);
    if (hex.size() < digits || hex.find_first_not_of("0123456789abcdefABCDEF") != std::string_view::npos)
      refuse("\\x or \\u without its digits");
    if (digits == 2 && hex[0] > '7') refuse("a byte above 7F");
    out_.append("\\x{").append(hex).push_back('}');
    pos_ += digits;
  }

  std::string_view in_;
  size_t pos_ = 0;
  std::string out_;
  size_t atom_ = 0;             // where the last atom starts in out_
  std::vector<size_t> groups_;  // where the open groups start in out_
  int nesting_ = 0;
};

std::string message_of(int code) {
  PCRE2_UCHAR text[256] = {};
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

PCRE2_SPTR pointer(std::string_view s) { return reinterpret_cast<PCRE2_SPTR>(s.data()); }

std::shared_ptr<const void> compile(std::string_view pattern, std::string_view translated) {
  constexpr size_t longest = 1 << 16;
  if (pattern.size() > longest)
    fail("tokenizer", "a pattern of {} bytes; at most {} are read", pattern.size(), longest);
  if (!utf8::valid(pattern)) fail("tokenizer", "a pattern is not valid UTF-8");
  const std::unique_ptr<pcre2_compile_context, void (*)(pcre2_compile_context*)> context(
      pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), 100);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(pointer(translated), translated.size(), PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE,
                                   &error, &offset, context.get());
  if (!code)
    fail("tokenizer", "the pattern \"{}\" does not compile: {} (at byte {} of \"{}\")", pattern, message_of(error),
         offset, translated);
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // where there is no JIT the interpreter runs
  return {code, [](const void* p) { pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(p))); }};
}

/// One pass over a text.
class Matcher {
 public:
  Matcher(const pcre2_code* code, std::string_view text)
      : code_(code),
        text_(text),
        data_(pcre2_match_data_create_from_pattern(code, nullptr), pcre2_match_data_free),
        context_(pcre2_match_context_create(nullptr), pcre2_match_context_free) {
    // A sane pattern takes a few steps a character; a hostile one is stopped.
    const size_t steps = 100000 + 64 * text.size();
    pcre2_set_match_limit(context_.get(), static_cast<uint32_t>(std::min<size_t>(steps, UINT32_MAX)));
  }

  /// False when there is no further match at or behind `from`.
  bool find(size_t from, Regex::Range& match) {
    int rc = run(from, PCRE2_NO_UTF_CHECK);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) rc = run(from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT);
    if (rc == PCRE2_ERROR_NOMATCH) return false;
    if (rc < 0) fail("tokenizer", "a pattern gave up on a text of {} bytes: {}", text_.size(), message_of(rc));
    const PCRE2_SIZE* at = pcre2_get_ovector_pointer(data_.get());
    match = {at[0], at[1]};
    return true;
  }

 private:
  int run(size_t from, uint32_t options) {
    return pcre2_match(code_, pointer(text_), text_.size(), from, options, data_.get(), context_.get());
  }

  const pcre2_code* code_;
  std::string_view text_;
  std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> data_;
  std::unique_ptr<pcre2_match_context, void (*)(pcre2_match_context*)> context_;
};

}  // namespace

std::string to_pcre2(std::string_view pattern) { return Translator(pattern).run(); }

Regex::Regex(std::string_view pattern) : pattern_(pattern) {
  if (!utf8::valid(pattern)) fail("tokenizer", "a pattern is not valid UTF-8");
  code_ = compile(pattern, to_pcre2(pattern));
}

void Regex::for_each(std::string_view text, FunctionRef<void(Range)> match) const {
  Matcher matcher(static_cast<const pcre2_code*>(code_.get()), text);
  Range found;
  size_t behind = std::string_view::npos;  // the last match
  for (size_t from = 0; from <= text.size() && matcher.find(from, found);) {
    from = found.second;
    if (found.first < found.second || behind != found.second)
      match(found);
    else if (from == text.size())
      break;
    else
      utf8::next(text, from);
    behind = found.second;
  }
}

std::vector<Regex::Range> Regex::find_all(std::string_view text) const {
  std::vector<Range> matches;
  for_each(text, [&](Range match) { matches.push_back(match); });
  return matches;
}

}  // namespace awq
