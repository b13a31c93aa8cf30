#include "text/added_tokens.h"

#include <algorithm>

#include "base/check.h"
#include "text/utf8.h"

namespace awq {
namespace {

bool word_before(std::string_view text, size_t pos) { return pos > 0 && utf8::is_word(utf8::previous(text, pos)); }
bool word_behind(std::string_view text, size_t pos) {
  return pos < text.size() && utf8::is_word(utf8::next(text, pos));
}

size_t spaces_before(std::string_view text, size_t pos, size_t limit) {
  while (pos > limit) {
    size_t at = pos;
    if (!utf8::is_space(utf8::previous(text, at))) break;
    pos = at;
  }
  return pos;
}

size_t spaces_behind(std::string_view text, size_t pos) {
  while (pos < text.size()) {
    size_t at = pos;
    if (!utf8::is_space(utf8::next(text, at))) break;
    pos = at;
  }
  return pos;
}

}  // namespace

void AddedTokenMatcher::add(const AddedToken& token) {
  const std::string& pattern = token.pattern;
  if (pattern.empty()) return;
  if (pattern.size() > longest)
    fail("tokenizer", "added token {} has {} bytes; at most {} are read", token.id, pattern.size(), longest);
  starts_[static_cast<unsigned char>(pattern[0])] = true;
  has_special_ = has_special_ || token.special;
  trie_.add(pattern, static_cast<int32_t>(tokens_.size()));
  tokens_.push_back(token);
}

bool AddedTokenMatcher::match_at(std::string_view text, size_t pos, Match& match) const {
  bool found = false;
  int32_t node = 0;
  while (pos < text.size()) {
    node = trie_.child(node, text[pos]);
    if (node < 0) break;
    ++pos;
    const int32_t token = trie_.value(node);
    if (token < 0) continue;
    match = {pos, &tokens_[size_t(token)]};
    found = true;
  }
  return found;
}

std::vector<AddedTokenMatcher::Span> AddedTokenMatcher::split(std::string_view text, bool parse_special,
                                                              std::span<const ByteRange> plain) const {
  std::vector<Span> spans;
  size_t done = 0;
  Match match{};
  for (size_t pos = 0; pos < text.size();) {
    if (!starts_[static_cast<unsigned char>(text[pos])] || !match_at(text, pos, match)) {
      ++pos;
      continue;
    }
    while (!plain.empty() && plain.front().end <= pos) plain = plain.subspan(1);
    const bool touches = match.token->special && parse_special && !plain.empty() && plain.front().begin < match.end;
    if (touches && plain.front().begin <= pos) {
      pos = std::min(match.end, plain.front().end);
      continue;
    }
    if (touches && !match_at(text.substr(0, plain.front().begin), pos, match)) {
      ++pos;
      continue;
    }
    size_t begin = pos, end = match.end;
    pos = match.end;  // a match that is turned down below still hides tokens that overlap it, as in the reference
    if (match.token->special && !parse_special) continue;
    if (match.token->single_word && (word_before(text, begin) || word_behind(text, end))) continue;
    if (match.token->lstrip) begin = std::max(done, spaces_before(text, begin, done));
    if (match.token->rstrip) end = spaces_behind(text, end);
    if (done < begin) spans.push_back({done, begin, -1});
    spans.push_back({begin, end, match.token->id});
    done = end;
  }
  if (done < text.size() || text.empty()) spans.push_back({done, text.size(), -1});
  return spans;
}

}  // namespace awq
