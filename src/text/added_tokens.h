#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/marked_text.h"
#include "text/trie.h"

namespace awq {

/// A token that is cut out of the text before anything else looks at it.
struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false;  // not inside a word
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space behind it
  bool normalized = false;   // looked for in normalized text
  bool special = false;      // control token: skipped in decoding, and recognised in text only where asked
  std::string pattern{};  // what is looked for and what decoding starts from: the content, normalized if `normalized`
};

/// Finds added tokens in text: leftmost first, of several at one place the longest. Time is linear in the text times
/// the longest token.
class AddedTokenMatcher {
 public:
  static constexpr size_t longest = 4096;  // bytes of a pattern; Gemma 3's longest token has 93

  /// Throws Error if the pattern is longer than `longest`. One that is empty is never found.
  void add(const AddedToken& token);

  struct Span {
    size_t begin, end;
    int32_t id;  // -1: text between tokens
  };
  /// The text cut into spans, none of them empty unless the text is. Special tokens count only with `parse_special`,
  /// and only if they touch none of the `plain` stretches, which are in order and apart.
  std::vector<Span> split(std::string_view text, bool parse_special, std::span<const ByteRange> plain = {}) const;
  bool has_special() const { return has_special_; }

  struct Match {
    size_t end;
    const AddedToken* token;
  };
  /// The longest token at text[pos], whatever stands around it.
  bool match_at(std::string_view text, size_t pos, Match& match) const;

 private:
  Trie trie_;  // of indices into tokens_
  std::vector<AddedToken> tokens_;
  bool has_special_ = false;
  std::array<bool, 256> starts_{};  // first bytes of tokens
};

}  // namespace awq
