#include "text/bpe.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <queue>

#include "text/json_fields.h"
#include "text/utf8.h"

namespace awq {
namespace {

namespace fields = json_fields;

void refuse_unless_empty(const nlohmann::json& model, std::string_view key) {
  if (!fields::text(model, "model BPE", key, "").empty())
    fail("tokenizer", "tokenizer.json: model BPE: {} is not implemented", key);
}

void check_options(const nlohmann::json& model) {
  refuse_unless_empty(model, "continuing_subword_prefix");
  refuse_unless_empty(model, "end_of_word_suffix");
  const nlohmann::json* dropout = fields::find(model, "dropout");
  if (dropout && *dropout != 0)
    fail("tokenizer", "tokenizer.json: model BPE: dropout would make the ids random; it is not implemented");
}

/// Symbols of a piece as a doubly linked list in a vector; a merged right neighbour has id -1.
struct Symbol {
  int32_t id, prev, next;
};

struct PossibleMerge {
  int32_t rank, at, id;
  bool operator>(const PossibleMerge& o) const { return rank != o.rank ? rank > o.rank : at > o.at; }
};

std::vector<Symbol> linked(const std::vector<int32_t>& ids) {
  std::vector<Symbol> symbols(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto at = static_cast<int32_t>(i);
    symbols[i] = {ids[i], at - 1, i + 1 < ids.size() ? at + 1 : -1};
  }
  return symbols;
}

Vocabulary read_vocabulary(const nlohmann::json& model) {
  const nlohmann::json* vocab = fields::find(model, "vocab");
  if (!vocab || !vocab->is_object()) fields::bad("model BPE", "vocab", "an object of tokens and ids");
  Vocabulary vocabulary(vocab->size());
  for (const auto& [text, id] : vocab->items())
    vocabulary.add(text, fields::index(id, "model BPE", "vocab", Vocabulary::limit));
  return vocabulary;
}

}  // namespace

Bpe::Bpe(const nlohmann::json& model) : vocabulary_(read_vocabulary(model)) {
  check_options(model);
  unknown_text_ = fields::text(model, "model BPE", "unk_token", "");
  if (!unknown_text_.empty()) unknown_ = vocabulary_.id_of(unknown_text_).value_or(-1);
  fuse_unknown_ = fields::flag(model, "model BPE", "fuse_unk", false);
  ignore_merges_ = fields::flag(model, "model BPE", "ignore_merges", false);
  if (fields::flag(model, "model BPE", "byte_fallback", false)) {
    for (int b = 0; b < 256; ++b) byte_ids_.push_back(vocabulary_.id_of(fmt::format("<0x{:02X}>", b)).value_or(-1));
  }
  read_merges(fields::array(model, "model BPE", "merges"));
}

void Bpe::read_merges(const nlohmann::json& merges) {
  merges_ = Merges(merges.size());
  int32_t rank = 0;
  for (const nlohmann::json& m : merges) {
    if (m.is_array() && m.size() == 2 && m[0].is_string() && m[1].is_string()) {
      add_merge(m[0].get_ref<const std::string&>(), m[1].get_ref<const std::string&>(), rank++);
      continue;
    }
    const std::string_view pair = m.is_string() ? std::string_view(m.get_ref<const std::string&>()) : "";
    if (pair.starts_with("#version")) continue;
    const size_t space = pair.find(' ');
    if (space == std::string_view::npos || pair.find(' ', space + 1) != std::string_view::npos)
      fail("tokenizer", "tokenizer.json: merge {} should be two tokens: \"a b\" or [\"a\", \"b\"]", rank);
    add_merge(pair.substr(0, space), pair.substr(space + 1), rank++);
  }
}

void Bpe::add_merge(std::string_view left, std::string_view right, int32_t rank) {
  const auto id = [&](std::string_view text) {
    const std::optional<int32_t> found = vocabulary_.id_of(text);
    if (!found)
      fail("tokenizer", "tokenizer.json: merge {} (\"{}\" and \"{}\") names \"{}\", which is no token", rank, left,
           right, text);
    return *found;
  };
  const int32_t a = id(left), b = id(right);
  merges_.set(a, b, {rank, id(std::string(left).append(right))});
}

bool Bpe::append_bytes(std::string_view character, std::vector<int32_t>& ids) const {
  if (byte_ids_.empty()) return false;
  const auto id = [&](char b) { return byte_ids_[static_cast<unsigned char>(b)]; };
  if (std::any_of(character.begin(), character.end(), [&](char b) { return id(b) < 0; })) return false;
  for (const char b : character) ids.push_back(id(b));
  return true;
}

std::vector<int32_t> Bpe::characters(std::string_view piece) const {
  std::vector<int32_t> ids;
  ids.reserve(piece.size());
  // An unknown token waits, since the next unknown may fuse with it. As in the reference, bytes overtake it.
  bool pending = false;
  for (size_t pos = 0; pos < piece.size();) {
    const size_t begin = pos;
    utf8::next(piece, pos);
    const std::string_view character = piece.substr(begin, pos - begin);
    if (const std::optional<int32_t> id = vocabulary_.id_of(character)) {
      if (pending) ids.push_back(unknown_);
      pending = false;
      ids.push_back(*id);
    } else if (!append_bytes(character, ids) && !unknown_text_.empty()) {
      if (unknown_ < 0)
        fail("tokenizer", "\"{}\" has no token, and the unknown token \"{}\" has none either", character,
             unknown_text_);
      if (pending && !fuse_unknown_) ids.push_back(unknown_);
      pending = true;
    }
  }
  if (pending) ids.push_back(unknown_);
  return ids;
}

void Bpe::merge(const std::vector<int32_t>& symbol_ids, std::vector<int32_t>& ids) const {
  std::vector<Symbol> symbols = linked(symbol_ids);
  std::vector<PossibleMerge> heap;
  const auto candidate = [&](int32_t at) {
    const int32_t right = at < 0 ? -1 : symbols[size_t(at)].next;
    if (right < 0) return;
    if (const Merge* m = merges_.find(symbols[size_t(at)].id, symbols[size_t(right)].id))
      heap.push_back({m->rank, at, m->id});
  };
  for (size_t i = 0; i < symbols.size(); ++i) candidate(static_cast<int32_t>(i));
  std::priority_queue<PossibleMerge, std::vector<PossibleMerge>, std::greater<>> queue(std::greater<>(),
                                                                                       std::move(heap));
  heap.clear();
  while (!queue.empty()) {
    const PossibleMerge top = queue.top();
    queue.pop();
    Symbol& left = symbols[size_t(top.at)];
    if (left.id < 0 || left.next < 0) continue;
    Symbol& right = symbols[size_t(left.next)];
    const Merge* m = merges_.find(left.id, right.id);
    if (!m || m->id != top.id) continue;  // the pair has changed since it was queued
    left.id = top.id;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) symbols[size_t(left.next)].prev = top.at;
    candidate(left.prev);
    candidate(top.at);
    for (const PossibleMerge& c : heap) queue.push(c);
    heap.clear();
  }
  for (const Symbol& s : symbols)
    if (s.id >= 0) ids.push_back(s.id);
}

void Bpe::encode(std::string_view piece, std::vector<int32_t>& ids) const {
  if (ignore_merges_) {
    if (const std::optional<int32_t> id = vocabulary_.id_of(piece)) return ids.push_back(*id);
  }
  merge(characters(piece), ids);
}

}  // namespace awq
