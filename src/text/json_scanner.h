#pragma once
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

namespace awq {

/// Walks through JSON without building a tree. Strings and numbers that are read are checked as a parser does; what is
/// skipped is only known to have balanced brackets, and is to be given to a parser.
class JsonScanner {
 public:
  /// `unescaped` keeps strings that are not in the text as they read.
  JsonScanner(std::string_view text, std::deque<std::string>& unescaped) : text_(text), unescaped_(unescaped) {}

  size_t position() const { return at_; }
  /// The next character that is no white space; NUL at the end.
  char peek();
  /// Takes `c` if it comes next.
  bool take(char c);
  void expect(char c);
  std::string_view string();
  int64_t integer();
  double number();
  void skip_value();

  /// Calls `entry` at each entry of the list that comes next.
  template <class F>
  void each(char open, char close, F&& entry) {
    expect(open);
    if (take(close)) return;
    do entry();
    while (take(','));
    expect(close);
  }
  [[noreturn]] void bad(std::string_view expected) const;

 private:
  std::string_view unescape(size_t begin);
  char32_t hex4();
  void skip_string();
  std::string_view number_text();

  std::string_view text_;
  std::deque<std::string>& unescaped_;
  size_t at_ = 0;
};

}  // namespace awq
