#pragma once
#include <optional>

#include "text/token_model.h"

namespace awq {

/// Each piece is a token as it is, or the unknown token.
class WordLevel final : public TokenModel {
 public:
  explicit WordLevel(const ModelFile& model);  // throws Error
  const Vocabulary& vocabulary() const override { return vocabulary_; }
  /// Throws Error for an unknown word if the vocabulary lacks the unknown token.
  void encode(std::string_view piece, std::vector<int32_t>& ids) const override;

 private:
  Vocabulary vocabulary_;
  std::optional<int32_t> unknown_;
};

}  // namespace awq
