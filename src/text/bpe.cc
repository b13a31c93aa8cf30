#include "text/bpe.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <queue>

#include "text/json_fields.h"
#include "text/tokenizer_file.h"
#include "text/utf8.h"

namespace awq {
namespace {

namespace fields = json_fields;

BpeOptions read_options(const nlohmann::json& model) {
  const nlohmann::json* dropout = fields::find(model, "dropout");
  if (dropout && *dropout != 0)
    fail("tokenizer", "tokenizer.json: model BPE: dropout would make the ids random; it is not implemented");
  return {.unknown = fields::text(model, "model BPE", "unk_token", ""),
          .fuse_unknown = fields::flag(model, "model BPE", "fuse_unk", false),
          .byte_fallback = fields::flag(model, "model BPE", "byte_fallback", false),
          .whole_words = fields::flag(model, "model BPE", "ignore_merges", false),
          .word_prefix = fields::text(model, "model BPE", "continuing_subword_prefix", ""),
          .word_suffix = fields::text(model, "model BPE", "end_of_word_suffix", "")};
}

Merges read_merges(const ModelFile& model, const Vocabulary& vocabulary, size_t prefix) {
  if (!model.has_merges) fields::bad("model BPE", "merges", "a list");
  Merges merges(model.merges.size());
  std::string joined;
  int32_t rank = 0;
  for (const auto& [left, right] : model.merges) {
    const auto id = [&, l = left, r = right](std::string_view text) {
      const std::optional<int32_t> found = vocabulary.id_of(text);
      if (!found)
        fail("tokenizer", "tokenizer.json: merge {} (\"{}\" and \"{}\") names \"{}\", which is no token", rank, l, r,
             text);
      return *found;
    };
    const int32_t a = id(left), b = id(right);
    joined.assign(left).append(right.substr(std::min(prefix, right.size())));
    merges.set(a, b, {rank, id(joined)});
    ++rank;
  }
  return merges;
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

}  // namespace

Bpe::Bpe(const ModelFile& model)
    : vocabulary_(read_vocabulary(model, "model BPE")), options_(read_options(model.options)) {
  merges_ = read_merges(model, vocabulary_, options_.word_prefix.size());
  find_character_ids();
}

Bpe::Bpe(Vocabulary vocabulary, Merges merges, BpeOptions options)
    : vocabulary_(std::move(vocabulary)), merges_(std::move(merges)), options_(std::move(options)) {
  find_character_ids();
}

void Bpe::find_character_ids() {
  for (char32_t c = 0; c < kTabled; ++c) character_ids_[c] = vocabulary_.id_of(utf8::encode(c)).value_or(-1);
  if (!options_.unknown.empty()) unknown_ = vocabulary_.id_of(options_.unknown).value_or(-1);
  if (!options_.byte_fallback) return;
  for (int b = 0; b < 256; ++b) byte_ids_.push_back(vocabulary_.id_of(fmt::format("<0x{:02X}>", b)).value_or(-1));
}

void Bpe::add_symbol(std::string_view text, int32_t id) {
  if (!symbols_) symbols_.emplace();
  AddedToken token;
  token.id = id;
  token.content = token.pattern = text;
  symbols_->add(token);
}

bool Bpe::append_bytes(std::string_view character, std::vector<int32_t>& ids) const {
  if (byte_ids_.empty()) return false;
  const auto id = [&](char b) { return byte_ids_[static_cast<unsigned char>(b)]; };
  if (std::any_of(character.begin(), character.end(), [&](char b) { return id(b) < 0; })) return false;
  for (const char b : character) ids.push_back(id(b));
  return true;
}

std::optional<int32_t> Bpe::id_of_character(std::string_view piece, size_t begin, size_t end) const {
  const std::string_view character = piece.substr(begin, end - begin);
  if (!options_.word_prefix.empty() || !options_.word_suffix.empty()) {
    std::string text = begin > 0 ? options_.word_prefix : "";
    text.append(character);
    if (end == piece.size()) text.append(options_.word_suffix);
    return vocabulary_.id_of(text);
  }
  if (character.size() > 2) return vocabulary_.id_of(character);
  size_t pos = 0;
  const int32_t id = character_ids_[utf8::next(character, pos)];
  return id < 0 ? std::nullopt : std::optional(id);
}

std::vector<int32_t> Bpe::characters(std::string_view piece) const {
  std::vector<int32_t> ids;
  ids.reserve(piece.size());
  // An unknown token waits, since the next unknown may fuse with it. As in the reference, bytes overtake it.
  bool pending = false;
  const auto settle = [&] {
    if (pending) ids.push_back(unknown_);
    pending = false;
  };
  for (size_t pos = 0; pos < piece.size();) {
    const size_t begin = pos;
    if (AddedTokenMatcher::Match match{}; symbols_ && symbols_->match_at(piece, pos, match)) {
      settle();
      ids.push_back(match.token->id);
      pos = match.end;
      continue;
    }
    utf8::next(piece, pos);
    const std::string_view character = piece.substr(begin, pos - begin);
    if (const std::optional<int32_t> id = id_of_character(piece, begin, pos)) {
      settle();
      ids.push_back(*id);
    } else if (!append_bytes(character, ids) && !options_.unknown.empty()) {
      if (unknown_ < 0)
        fail("tokenizer", "\"{}\" has no token, and the unknown token \"{}\" has none either", character,
             options_.unknown);
      if (pending && !options_.fuse_unknown) ids.push_back(unknown_);
      pending = true;
    }
  }
  settle();
  return ids;
}

/// Looks at every pair for each merge: the fastest for the length of words.
void Bpe::merge_short(std::vector<int32_t>& symbols, std::vector<int32_t>& ids) const {
  constexpr int32_t never = std::numeric_limits<int32_t>::max();
  Merge pairs[kShort];  // of symbols i and i + 1
  const auto look_up = [&](size_t i) {
    const Merge* m = merges_.find(symbols[i], symbols[i + 1]);
    pairs[i] = m ? *m : Merge{never, -1};
  };
  size_t n = symbols.size();
  for (size_t i = 0; i + 1 < n; ++i) look_up(i);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i)
      if (pairs[i].rank < pairs[best].rank) best = i;
    if (pairs[best].rank == never) break;
    symbols[best] = pairs[best].id;
    symbols.erase(symbols.begin() + std::ptrdiff_t(best) + 1);
    std::copy(pairs + best + 1, pairs + n - 1, pairs + best);
    --n;
    if (best + 1 < n) look_up(best);
    if (best > 0) look_up(best - 1);
  }
  ids.insert(ids.end(), symbols.begin(), symbols.end());
}

void Bpe::merge_long(const std::vector<int32_t>& symbol_ids, std::vector<int32_t>& ids) const {
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
  if (options_.whole_words) {
    if (const std::optional<int32_t> id = vocabulary_.id_of(piece)) return ids.push_back(*id);
  }
  std::vector<int32_t> symbols = characters(piece);
  symbols.size() <= kShort ? merge_short(symbols, ids) : merge_long(symbols, ids);
}

Merges merges_of_ranks(const Vocabulary& vocabulary, std::span<const int32_t> ranks) {
  Merges merges(2 * ranks.size());
  const auto part = [&](std::string_view text) {
    const std::optional<int32_t> id = vocabulary.id_of(text);
    return id && ranks[size_t(*id)] >= 0 ? *id : -1;
  };
  for (size_t id = 0; id < ranks.size(); ++id) {
    const std::string* text = ranks[id] < 0 ? nullptr : vocabulary.text_of(int32_t(id));
    for (size_t cut = 1; text && cut < text->size(); ++cut) {
      const int32_t left = part(std::string_view(*text).substr(0, cut));
      const int32_t right = left < 0 ? -1 : part(std::string_view(*text).substr(cut));
      if (right >= 0) merges.set(left, right, {ranks[id], int32_t(id)});
    }
  }
  return merges;
}

}  // namespace awq
