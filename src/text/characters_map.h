#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace awq {

/// SentencePiece's compiled normalization ("precompiled_charsmap"): a table of texts and what replaces them. It is a
/// double-array trie (as darts-clone lays it out, little-endian: its size in bytes, its units) and the replacements,
/// each ended by NUL.
class CharactersMap {
 public:
  /// Throws Error if the table is damaged; look-ups are checked too, so that a damaged trie only finds nothing.
  explicit CharactersMap(std::string_view bytes);

  struct Match {
    size_t length;  // of what is replaced
    std::string_view replacement;
  };
  /// The longest, or the shortest, entry that `text` starts with.
  std::optional<Match> longest(std::string_view text) const { return find(text, false); }
  std::optional<Match> shortest(std::string_view text) const { return find(text, true); }

 private:
  std::optional<Match> find(std::string_view text, bool first) const;

  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace awq
