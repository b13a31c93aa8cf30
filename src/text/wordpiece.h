#pragma once
#include <string>

#include "text/token_model.h"

namespace awq {

/// BERT's model: of each piece the longest token that it starts with, then of the rest the longest that continues a
/// word, and so on. A piece that cannot be covered, or is too long, is one unknown token.
class WordPiece final : public TokenModel {
 public:
  explicit WordPiece(const ModelFile& model);  // throws Error
  const Vocabulary& vocabulary() const override { return vocabulary_; }
  void encode(std::string_view piece, std::vector<int32_t>& ids) const override;

 private:
  bool cover(std::string_view piece, std::vector<int32_t>& ids) const;

  Vocabulary vocabulary_;
  int32_t unknown_;
  std::string prefix_;  // of tokens that continue a word
  size_t longest_;      // characters of a piece
};

}  // namespace awq
