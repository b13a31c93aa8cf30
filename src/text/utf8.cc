#include "text/utf8.h"

#include <utf8proc.h>

#include <cstdint>
#include <cstring>
#include <utility>

namespace awq::utf8 {
namespace {

struct Lead {
  int length = 0;                         // 0: no lead byte
  unsigned char low = 0x80, high = 0xBF;  // allowed range of the second byte: excludes overlong forms and surrogates
};

Lead lead_of(unsigned char b) {
  if (b < 0x80) return {1};
  if (b >= 0xC2 && b <= 0xDF) return {2};
  if (b >= 0xE0 && b <= 0xEF)
    return {3, static_cast<unsigned char>(b == 0xE0 ? 0xA0 : 0x80),
            static_cast<unsigned char>(b == 0xED ? 0x9F : 0xBF)};
  if (b >= 0xF0 && b <= 0xF4)
    return {4, static_cast<unsigned char>(b == 0xF0 ? 0x90 : 0x80),
            static_cast<unsigned char>(b == 0xF4 ? 0x8F : 0xBF)};
  return {};
}

bool is_continuation(char b) { return (static_cast<unsigned char>(b) & 0xC0) == 0x80; }

}  // namespace

size_t skip_ascii(std::string_view s, size_t pos) {
  for (; pos + 8 <= s.size(); pos += 8) {
    uint64_t word = 0;
    std::memcpy(&word, s.data() + pos, 8);
    if (word & 0x8080808080808080u) break;
  }
  while (pos < s.size() && static_cast<unsigned char>(s[pos]) < 0x80) ++pos;
  return pos;
}

Scan scan(std::string_view s, size_t pos) {
  const Lead lead = lead_of(static_cast<unsigned char>(s[pos]));
  if (lead.length == 0) return {1, false, false};
  for (size_t i = 1; i < static_cast<size_t>(lead.length); ++i) {
    if (pos + i == s.size()) return {i, false, true};
    const auto b = static_cast<unsigned char>(s[pos + i]);
    if (b < (i == 1 ? lead.low : 0x80) || b > (i == 1 ? lead.high : 0xBF)) return {i, false, false};
  }
  return {static_cast<size_t>(lead.length), true, false};
}

char32_t next(std::string_view s, size_t& pos) {
  const auto b = static_cast<unsigned char>(s[pos++]);
  if (b < 0x80) return b;
  const int more = b >= 0xF0 ? 3 : b >= 0xE0 ? 2 : 1;
  char32_t c = b & (0x3F >> more);
  for (int i = 0; i < more && pos < s.size(); ++i) c = (c << 6) | (static_cast<unsigned char>(s[pos++]) & 0x3F);
  return c;
}

char32_t previous(std::string_view s, size_t& pos) {
  do --pos;
  while (pos > 0 && is_continuation(s[pos]));
  size_t at = pos;
  return next(s, at);
}

void append(std::string& out, char32_t c) {
  const auto byte = [&](char32_t b) { out.push_back(static_cast<char>(b)); };
  if (c < 0x80) return byte(c);
  if (c < 0x800) {
    byte(0xC0 | (c >> 6));
  } else if (c < 0x10000) {
    byte(0xE0 | (c >> 12));
    byte(0x80 | ((c >> 6) & 0x3F));
  } else {
    byte(0xF0 | (c >> 18));
    byte(0x80 | ((c >> 12) & 0x3F));
    byte(0x80 | ((c >> 6) & 0x3F));
  }
  byte(0x80 | (c & 0x3F));
}

std::string encode(char32_t c) {
  std::string out;
  append(out, c);
  return out;
}

size_t length(std::string_view s) {
  size_t n = 0;
  for (const char b : s) n += is_continuation(b) ? 0 : 1;
  return n;
}

bool valid(std::string_view s) {
  for (size_t pos = 0; pos < s.size();) {
    pos = skip_ascii(s, pos);
    if (pos == s.size()) break;
    const Scan at = scan(s, pos);
    if (!at.valid) return false;
    pos += at.length;
  }
  return true;
}

std::string sanitize(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  for (size_t pos = 0; pos < s.size();) {
    const Scan at = scan(s, pos);
    if (at.valid)
      out.append(s.substr(pos, at.length));
    else
      append(out, replacement);
    pos += at.length;
  }
  return out;
}

bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_word(char32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      break;
  }
  // Symbols that are alphabetic: circled and squared Latin letters. Then the two joiners.
  return (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
         (c >= 0x1F170 && c <= 0x1F189) || c == 0x200C || c == 0x200D;
}

std::string Stream::push(std::string_view bytes) {
  pending_.append(bytes);
  std::string out;
  size_t pos = 0;
  while (pos < pending_.size()) {
    const Scan at = scan(pending_, pos);
    if (at.incomplete) break;
    if (at.valid)
      out.append(pending_, pos, at.length);
    else
      append(out, replacement);
    pos += at.length;
  }
  pending_.erase(0, pos);
  return out;
}

std::string Stream::flush() { return std::exchange(pending_, {}).empty() ? std::string() : encode(replacement); }

}  // namespace awq::utf8
