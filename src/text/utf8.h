#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace awq::utf8 {

inline constexpr char32_t replacement = 0xFFFD;

/// What stands at s[pos]: a whole character, or the bytes that one U+FFFD replaces ("maximal subpart", Unicode 3.9).
struct Scan {
  size_t length;    // >= 1
  bool valid;       // a whole character
  bool incomplete;  // not valid, but the text ends inside it: more bytes could complete it
};
Scan scan(std::string_view s, size_t pos);

/// Past a run of ASCII.
size_t skip_ascii(std::string_view s, size_t pos);

/// The character at s[pos], which must be valid UTF-8; pos moves behind it.
char32_t next(std::string_view s, size_t& pos);
/// The character that ends at s[pos] (pos > 0), which must be valid UTF-8; pos moves to its start.
char32_t previous(std::string_view s, size_t& pos);
void append(std::string& out, char32_t c);
std::string encode(char32_t c);

/// Number of characters of valid UTF-8.
size_t length(std::string_view s);
bool valid(std::string_view s);
/// The text with every invalid subpart replaced by U+FFFD.
std::string sanitize(std::string_view s);

/// Unicode White_Space.
bool is_space(char32_t c);
/// \w of Unicode's regular expressions (UTS 18): alphabetic, mark, decimal number, connector punctuation, joiner.
bool is_word(char32_t c);

/// Bytes in, whole characters out: the outputs joined equal sanitize(all bytes joined).
class Stream {
 public:
  std::string push(std::string_view bytes);
  std::string flush();  // U+FFFD if a character was left unfinished

 private:
  std::string pending_;
};

}  // namespace awq::utf8
