#pragma once
// What must hold for any tokenizer and text.
#include <cstdlib>
#include <string>
#include <string_view>

#include "text/tokenizer.h"
#include "text/utf8.h"
#include "text/vocabulary.h"

namespace awq::fuzz {

/// Known ids; streaming equals decoding and never cuts a character.
inline std::vector<int32_t> round_trip(const Tokenizer& t, std::string_view text, bool parse_special) {
  const std::vector<int32_t> ids = t.encode(text, true, parse_special);
  StreamDecoder stream(t);
  std::string streamed;
  for (const int32_t id : ids) {
    const std::string part = stream.push(id);
    if (id < 0 || id >= Vocabulary::limit || !utf8::valid(part)) abort();
    streamed += part;
  }
  if (streamed + stream.flush() != t.decode(ids)) abort();
  return ids;
}

/// A vocabulary that has every byte loses nothing.
inline void must_come_back(const Tokenizer& t, std::string_view text) {
  if (t.decode(round_trip(t, text, true)) != utf8::sanitize(text)) abort();
}

}  // namespace awq::fuzz
