#pragma once
#include <nlohmann/json_fwd.hpp>

#include "text/merges.h"
#include "text/token_model.h"

namespace awq {

/// Byte pair encoding (Sennrich et al. 2016): the characters of a piece are merged pair by pair, the pair of the lowest
/// rank first and of equal pairs the leftmost. O(n log n) in the length of the piece.
class Bpe final : public TokenModel {
 public:
  /// "model" of tokenizer.json. Throws Error on options that are not implemented and on merges that name no token.
  explicit Bpe(const nlohmann::json& model);
  const Vocabulary& vocabulary() const override { return vocabulary_; }
  void encode(std::string_view piece, std::vector<int32_t>& ids) const override;

 private:
  void read_merges(const nlohmann::json& merges);
  void add_merge(std::string_view left, std::string_view right, int32_t rank);
  /// Ids of the single characters: from the vocabulary, else as bytes, else the unknown token, else nothing.
  std::vector<int32_t> characters(std::string_view piece) const;
  bool append_bytes(std::string_view character, std::vector<int32_t>& ids) const;
  void merge(const std::vector<int32_t>& symbols, std::vector<int32_t>& ids) const;

  Vocabulary vocabulary_;
  Merges merges_;
  std::vector<int32_t> byte_ids_;  // 256 ids, -1 where <0xXX> is no token; empty without byte fallback
  std::string unknown_text_;       // empty: characters without a token vanish
  int32_t unknown_ = -1;           // its id, -1 if the vocabulary lacks it: an error only where it is needed
  bool fuse_unknown_ = false;
  bool ignore_merges_ = false;  // a piece that is a token is taken whole
};

}  // namespace awq
