#include "text/sentencepiece.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "text/bpe.h"
#include "text/json_fields.h"
#include "text/protobuf.h"
#include "text/sentencepiece_text.h"
#include "text/tokenizer_parts.h"
#include "text/unigram.h"
#include "text/utf8.h"

namespace awq {
namespace {

enum class PieceType : uint64_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };
enum class ModelType : uint64_t { unigram = 1, bpe = 2 };

struct ModelPiece {
  std::string_view text;
  float score = 0;
  PieceType type = PieceType::normal;
};

/// sentencepiece_model.proto, as far as it says what texts become. The defaults are its own.
struct Model {
  std::vector<ModelPiece> pieces;
  ModelType type = ModelType::unigram;
  bool byte_fallback = false, suffix_spaces = false;
  int64_t bos = 1, eos = 2;
  std::string_view unknown_surface = " \xE2\x81\x87 ";
  SentencePieceRules rules;
};

void check_text(std::string_view text) {
  if (!utf8::valid(text)) fail("tokenizer", "the SentencePiece model holds a text that is not UTF-8; is it damaged?");
}

ModelPiece read_piece(std::string_view message) {
  ModelPiece piece;
  ProtoReader reader(message);
  while (const auto f = reader.next()) {
    if (f->number == 1) piece.text = f->bytes;
    if (f->number == 2) piece.score = std::bit_cast<float>(uint32_t(f->value));
    if (f->number == 3) piece.type = PieceType(f->value);
  }
  check_text(piece.text);
  if (piece.text.empty() || piece.type < PieceType::normal || piece.type > PieceType::byte ||
      !std::isfinite(piece.score))
    fail("tokenizer", "the SentencePiece model: piece \"{}\" has the type {} and the score {}; is the file damaged?",
         piece.text, uint64_t(piece.type), piece.score);
  if (piece.type == PieceType::unused)
    fail("tokenizer", "the SentencePiece model marks piece \"{}\" as unused, which is not implemented", piece.text);
  return piece;
}

void read_trainer(std::string_view message, Model& model) {
  ProtoReader reader(message);
  while (const auto f = reader.next()) {
    if (f->number == 3) model.type = ModelType(f->value);
    if (f->number == 24) model.suffix_spaces = f->value != 0;
    if (f->number == 35) model.byte_fallback = f->value != 0;
    if (f->number == 41) model.bos = int32_t(f->value);
    if (f->number == 42) model.eos = int32_t(f->value);
    if (f->number == 44) model.unknown_surface = f->bytes;
  }
  check_text(model.unknown_surface);
  if (model.type != ModelType::unigram && model.type != ModelType::bpe)
    fail("tokenizer", "the SentencePiece model is of type {}; this version has 1 (Unigram) and 2 (BPE)",
         uint64_t(model.type));
}

void read_normalizer(std::string_view message, SentencePieceRules& rules) {
  ProtoReader reader(message);
  while (const auto f = reader.next()) {
    if (f->number == 2 && !f->bytes.empty()) rules.map.emplace(f->bytes);
    if (f->number == 3) rules.add_space = f->value != 0;
    if (f->number == 4) rules.remove_spaces = f->value != 0;
    if (f->number == 5) rules.mark_spaces = f->value != 0;
  }
}

Model read_model(std::string_view bytes) {
  Model model;
  ProtoReader reader(bytes);
  while (const auto f = reader.next()) {
    if (f->number == 1) model.pieces.push_back(read_piece(f->bytes));
    if (f->number == 2) read_trainer(f->bytes, model);
    if (f->number == 3) read_normalizer(f->bytes, model.rules);
    if (f->number == 5) {
      SentencePieceRules after;
      read_normalizer(f->bytes, after);
      if (after.map) fail("tokenizer", "the SentencePiece model has a denormalizer, which is not implemented");
    }
  }
  if (model.pieces.empty()) fail("tokenizer", "the SentencePiece model has no pieces; is it one?");
  model.rules.space_behind = model.suffix_spaces;
  for (const ModelPiece& p : model.pieces)
    if (p.type == PieceType::user_defined) model.rules.add_symbol(p.text);
  return model;
}

Vocabulary vocabulary_of(const Model& model) {
  Vocabulary vocabulary(model.pieces.size());
  for (size_t id = 0; id < model.pieces.size(); ++id) vocabulary.add(model.pieces[id].text, int64_t(id));
  return vocabulary;
}

int32_t unknown_of(const Model& model) {
  const auto found = std::ranges::find(model.pieces, PieceType::unknown, &ModelPiece::type);
  if (found == model.pieces.end()) fail("tokenizer", "the SentencePiece model has no unknown piece; is it damaged?");
  return int32_t(found - model.pieces.begin());
}

/// Of pieces that may be merged into: their place by falling score, equal scores sharing one.
std::vector<int32_t> ranks_of(const std::vector<ModelPiece>& pieces) {
  std::vector<int32_t> ranks(pieces.size(), -1), order(pieces.size());
  std::iota(order.begin(), order.end(), 0);
  std::erase_if(order, [&](int32_t id) { return pieces[size_t(id)].type != PieceType::normal; });
  std::ranges::sort(order, std::greater(), [&](int32_t id) { return pieces[size_t(id)].score; });
  int32_t rank = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    const bool tied = i > 0 && pieces[size_t(order[i - 1])].score == pieces[size_t(order[i])].score;
    ranks[size_t(order[i])] = tied ? rank : ++rank;
  }
  return ranks;
}

std::unique_ptr<TokenModel> bpe_of(const Model& model) {
  Vocabulary vocabulary = vocabulary_of(model);
  Merges merges = merges_of_ranks(vocabulary, ranks_of(model.pieces));
  BpeOptions options{.unknown = std::string(model.pieces[size_t(unknown_of(model))].text),
                     .fuse_unknown = true,
                     .byte_fallback = model.byte_fallback};
  auto bpe = std::make_unique<Bpe>(std::move(vocabulary), std::move(merges), std::move(options));
  for (size_t id = 0; id < model.pieces.size(); ++id)
    if (model.pieces[id].type == PieceType::user_defined) bpe->add_symbol(model.pieces[id].text, int32_t(id));
  return bpe;
}

std::unique_ptr<TokenModel> unigram_of(const Model& model) {
  std::vector<Unigram::Piece> pieces;
  float lowest = std::numeric_limits<float>::max();
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const ModelPiece& p = model.pieces[id];
    if (p.type == PieceType::normal) lowest = std::min(lowest, p.score);
    if (p.type == PieceType::normal || p.type == PieceType::user_defined)
      pieces.push_back({int32_t(id), p.score, p.type == PieceType::user_defined});
  }
  constexpr float penalty = 10;
  return std::make_unique<Unigram>(vocabulary_of(model), pieces,
                                   Unigram::Options{.unknown = unknown_of(model),
                                                    .byte_fallback = model.byte_fallback,
                                                    .single_precision = true,
                                                    .unknown_score = lowest - penalty});
}

std::optional<int32_t> piece_at(const Model& model, int64_t id) {
  return id >= 0 && id < int64_t(model.pieces.size()) ? std::optional(int32_t(id)) : std::nullopt;
}

/// The token that tokenizer_config.json asks for around texts, if it does.
std::vector<int32_t> end_of(const nlohmann::json& config, const char* key, std::optional<int32_t> token) {
  if (!config.is_object() || !json_fields::flag(config, "tokenizer_config.json", key, false)) return {};
  if (!token) fail("tokenizer", "tokenizer_config.json says {}, but the SentencePiece model has no such token", key);
  return {*token};
}

}  // namespace

Tokenizer parse_sentencepiece(std::string_view bytes, const nlohmann::json& config) {
  const Model model = read_model(bytes);
  auto parts = std::make_shared<TokenizerParts>();
  parts->raw_bytes = true;
  parts->model = model.type == ModelType::bpe ? bpe_of(model) : unigram_of(model);
  for (size_t id = 0; id < model.pieces.size(); ++id)
    if (model.pieces[id].type == PieceType::control)
      parts->added.emplace(
          int32_t(id), AddedToken{.id = int32_t(id), .content = std::string(model.pieces[id].text), .special = true});
  parts->read_config_tokens(config);
  parts->decoder = {
      sentencepiece_decoder(model.rules, model.pieces[size_t(unknown_of(model))].text, model.unknown_surface)};
  parts->normalizer = sentencepiece_normalizer(model.rules);
  parts->pre_tokenizer = make_pre_tokenizer(nullptr);
  parts->bos = piece_at(model, model.bos);
  parts->eos = piece_at(model, model.eos);
  parts->post_processor = {end_of(config, "add_bos_token", parts->bos), end_of(config, "add_eos_token", parts->eos)};
  parts->index_added_tokens();
  return Tokenizer(std::move(parts));
}

}  // namespace awq
