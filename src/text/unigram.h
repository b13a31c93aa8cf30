#pragma once
#include <optional>

#include "text/token_model.h"
#include "text/trie.h"

namespace awq {

/// The unigram model (Kudo 2018): the segmentation with the largest sum of scores, found by dynamic programming.
/// Linear in the text times the longest token.
class Unigram final : public TokenModel {
 public:
  /// Where sentencepiece and the tokenizers library compute differently.
  struct Options {
    std::optional<int32_t> unknown{};
    bool byte_fallback = false;
    bool single_precision = false;  // sums are rounded to float, as in sentencepiece
    double unknown_score = 0;       // of a character that no token covers
  };
  struct Piece {
    int32_t id;
    double score;
    bool user_defined = false;  // scored by its length: it beats whatever it could be cut into
  };

  /// "model" of tokenizer.json. Throws Error.
  explicit Unigram(const ModelFile& model);
  /// Only `pieces` are found in texts.
  Unigram(Vocabulary vocabulary, const std::vector<Piece>& pieces, Options options);
  const Vocabulary& vocabulary() const override { return vocabulary_; }
  void encode(std::string_view piece, std::vector<int32_t>& ids) const override;

 private:
  struct Node;
  void extend(std::string_view text, size_t begin, std::vector<Node>& best) const;
  double score_of(int32_t piece, size_t length) const;
  void append_unknown(std::string_view text, std::vector<int32_t>& ids) const;
  void index(const std::vector<Piece>& pieces);

  Vocabulary vocabulary_;
  Options options_;
  std::vector<Piece> pieces_;
  double highest_ = 0;
  Trie trie_;                      // of indices into pieces_
  std::vector<int32_t> byte_ids_;  // 256, or empty where one is missing or none is to be used
};

}  // namespace awq
