#pragma once
#include <array>
#include <optional>
#include <span>
#include <string>

#include "text/added_tokens.h"
#include "text/merges.h"
#include "text/token_model.h"

namespace awq {

struct BpeOptions {
  std::string unknown{};       // text of the token for characters without one; empty: they vanish
  bool fuse_unknown = false;   // a run of them is one token
  bool byte_fallback = false;  // they become tokens <0x00> to <0xFF> where all their bytes have one
  bool whole_words = false;    // a piece that is a token is taken whole, whatever the merges say
  std::string word_prefix{};   // before each character of a piece but the first
  std::string word_suffix{};   // behind the last
};

/// Byte pair encoding (Sennrich et al. 2016): the characters of a piece are merged pair by pair, the pair of the lowest
/// rank first and of equal pairs the leftmost. O(n log n) in the length of the piece.
class Bpe final : public TokenModel {
 public:
  /// "model" of tokenizer.json. Throws Error on options that are not implemented and on merges that name no token.
  explicit Bpe(const ModelFile& model);
  Bpe(Vocabulary vocabulary, Merges merges, BpeOptions options);
  const Vocabulary& vocabulary() const override { return vocabulary_; }
  void encode(std::string_view piece, std::vector<int32_t>& ids) const override;
  /// Texts that stand for a token wherever they are and that merge with nothing (SentencePiece's user-defined symbols).
  void add_symbol(std::string_view text, int32_t id);

 private:
  void find_character_ids();
  /// Ids of the single characters: from the vocabulary, else as bytes, else the unknown token, else nothing.
  std::vector<int32_t> characters(std::string_view piece) const;
  std::optional<int32_t> id_of_character(std::string_view piece, size_t begin, size_t end) const;
  bool append_bytes(std::string_view character, std::vector<int32_t>& ids) const;
  void merge_short(std::vector<int32_t>& symbols, std::vector<int32_t>& ids) const;
  void merge_long(const std::vector<int32_t>& symbols, std::vector<int32_t>& ids) const;

  static constexpr size_t kTabled = 0x800;  // code points of at most two bytes
  static constexpr size_t kShort = 64;      // symbols of a piece that needs no heap

  Vocabulary vocabulary_;
  Merges merges_;
  BpeOptions options_;
  std::optional<AddedTokenMatcher> symbols_;
  std::array<int32_t, kTabled> character_ids_{};  // -1: no token
  std::vector<int32_t> byte_ids_;                 // 256 ids, -1 where <0xXX> is no token; empty without byte fallback
  int32_t unknown_ = -1;  // its id, -1 if the vocabulary lacks it: an error only where it is needed
};

/// Merges of a vocabulary that lists no merges: any two neighbours that together are a token may become it, in the
/// order of ranks[id]. A negative rank: the token takes no part. (tiktoken, SentencePiece)
Merges merges_of_ranks(const Vocabulary& vocabulary, std::span<const int32_t> ranks);

}  // namespace awq
