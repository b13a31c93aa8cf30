#include "text/unigram.h"

#include <algorithm>
#include <limits>

#include "text/added_tokens.h"
#include "text/json_fields.h"
#include "text/tokenizer_file.h"
#include "text/utf8.h"

namespace awq {

namespace fields = json_fields;

namespace {

constexpr double kUnknownPenalty = 10;

Vocabulary numbered(const ModelFile& model) {
  if (!model.has_scores) fields::bad("model Unigram", "vocab", "a list of tokens and scores");
  if (model.vocab.empty()) fields::bad("model Unigram", "vocab", "a list that is not empty");
  Vocabulary vocabulary(model.vocab.size());
  for (size_t id = 0; id < model.vocab.size(); ++id) vocabulary.add(model.vocab[id].text, int64_t(id));
  return vocabulary;
}

}  // namespace

/// The best way to where the node stands.
struct Unigram::Node {
  double score = 0;
  uint32_t begin = 0;  // of its last token
  int32_t piece = -1;  // that token; -1: unknown
  bool reached = false;
};

Unigram::Unigram(const ModelFile& model) : vocabulary_(numbered(model)) {
  if (const nlohmann::json* id = fields::find(model.options, "unk_id"))
    options_.unknown = fields::index(*id, "model Unigram", "unk_id", vocabulary_.size());
  options_.byte_fallback = fields::flag(model.options, "model Unigram", "byte_fallback", false);
  std::vector<Piece> pieces;
  double lowest = std::numeric_limits<double>::infinity();
  for (size_t id = 0; id < model.vocab.size(); ++id) {
    lowest = std::min(lowest, model.vocab[id].value);
    pieces.push_back({int32_t(id), model.vocab[id].value});
  }
  options_.unknown_score = lowest - kUnknownPenalty;
  index(pieces);
}

Unigram::Unigram(Vocabulary vocabulary, const std::vector<Piece>& pieces, Options options)
    : vocabulary_(std::move(vocabulary)), options_(options) {
  index(pieces);
}

void Unigram::index(const std::vector<Piece>& pieces) {
  highest_ = -std::numeric_limits<double>::infinity();
  for (const Piece& p : pieces) {
    const std::string& text = *vocabulary_.text_of(p.id);
    if (text.size() > AddedTokenMatcher::longest)
      fail("tokenizer", "token {} has {} bytes; at most {} are read", p.id, text.size(), AddedTokenMatcher::longest);
    if (text.empty()) continue;
    if (!p.user_defined) highest_ = std::max(highest_, p.score);
    trie_.add(text, int32_t(pieces_.size()));
    pieces_.push_back(p);
  }
  if (!options_.byte_fallback) return;
  for (int b = 0; b < 256; ++b) {
    const auto id = vocabulary_.id_of(fmt::format("<0x{:02X}>", b));
    if (id) byte_ids_.push_back(*id);
  }
  if (byte_ids_.size() < 256) byte_ids_.clear();
}

double Unigram::score_of(int32_t piece, size_t length) const {
  const Piece& p = pieces_[size_t(piece)];
  return p.user_defined ? double(float(length) * float(highest_)) - 0.1 : p.score;
}

/// Every token that starts at `begin` is a way to its end; so is the single character, as an unknown token.
void Unigram::extend(std::string_view text, size_t begin, std::vector<Node>& best) const {
  const auto offer = [&](size_t end, double score, int32_t piece) {
    if (options_.single_precision) score = double(float(score));
    Node& node = best[end];
    if (node.reached && score <= node.score) return;
    node = {score, uint32_t(begin), piece, true};
  };
  size_t character = begin;
  utf8::next(text, character);
  bool covered = false;
  int32_t node = 0;
  for (size_t end = begin; end < text.size();) {
    node = trie_.child(node, text[end++]);
    if (node < 0) break;
    const int32_t piece = trie_.value(node);
    if (piece < 0) continue;
    offer(end, score_of(piece, end - begin) + best[begin].score, piece);
    covered = covered || end == character;
  }
  if (!covered) offer(character, options_.unknown_score + best[begin].score, -1);
}

void Unigram::append_unknown(std::string_view text, std::vector<int32_t>& ids) const {
  if (!byte_ids_.empty()) {
    for (const char b : text) ids.push_back(byte_ids_[static_cast<unsigned char>(b)]);
  } else if (options_.unknown) {
    ids.push_back(*options_.unknown);
  } else {
    fail("tokenizer", "\"{}\" has no token, and there is no unknown token", text);
  }
}

void Unigram::encode(std::string_view text, std::vector<int32_t>& ids) const {
  if (text.size() > std::numeric_limits<uint32_t>::max()) fail("tokenizer", "a text of more than 4 GB");
  std::vector<Node> best(text.size() + 1);
  best[0].reached = true;
  for (size_t begin = 0; begin < text.size(); utf8::next(text, begin)) extend(text, begin, best);
  struct Token {
    uint32_t begin, end;
    int32_t piece;
  };
  std::vector<Token> tokens;  // last first; unknown ones that follow each other are one
  for (uint32_t end = uint32_t(text.size()); end > 0; end = best[end].begin) {
    const Node& node = best[end];
    if (node.piece < 0 && !tokens.empty() && tokens.back().piece < 0)
      tokens.back().begin = node.begin;
    else
      tokens.push_back({node.begin, end, node.piece});
  }
  for (auto t = tokens.rbegin(); t != tokens.rend(); ++t)
    if (t->piece < 0)
      append_unknown(text.substr(t->begin, t->end - t->begin), ids);
    else
      ids.push_back(pieces_[size_t(t->piece)].id);
}

}  // namespace awq
