#include "text/pre_tokenizer.h"

#include <nlohmann/json.hpp>

#include "text/byte_alphabet.h"
#include "text/json_fields.h"
#include "text/pattern.h"
#include "text/utf8.h"

namespace awq {
namespace {

namespace fields = json_fields;

/// What becomes of the matches of a Split, as the format names it.
enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

Behavior behavior_of(const nlohmann::json& spec) {
  const std::string name = fields::text(spec, "pre_tokenizer Split", "behavior");
  if (name == "Removed") return Behavior::removed;
  if (name == "Isolated") return Behavior::isolated;
  if (name == "MergedWithPrevious") return Behavior::merged_with_previous;
  if (name == "MergedWithNext") return Behavior::merged_with_next;
  if (name == "Contiguous") return Behavior::contiguous;
  fail("tokenizer", "tokenizer.json: pre_tokenizer Split: the behavior {} is not implemented", name);
}

struct Segment {
  size_t begin, end;
  bool match;
};

/// Matches and the text between them. With `invert` they change roles.
std::vector<Segment> segments_of(size_t size, const std::vector<Regex::Range>& matches, bool invert) {
  std::vector<Segment> out;
  out.reserve(2 * matches.size() + 1);
  size_t done = 0;
  for (const Regex::Range& m : matches) {
    if (done < m.first) out.push_back({done, m.first, invert});
    out.push_back({m.first, m.second, !invert});
    done = m.second;
  }
  if (done < size) out.push_back({done, size, invert});
  return out;
}

/// Whether segment i goes into the same piece as segment i - 1. Of two matches in a row the second stands alone when
/// matches merge with the previous, the first when they merge with the next.
bool joins(const std::vector<Segment>& s, size_t i, Behavior behavior) {
  switch (behavior) {
    case Behavior::contiguous:
      return s[i].match == s[i - 1].match;
    case Behavior::merged_with_previous:
      return s[i].match && !s[i - 1].match;
    case Behavior::merged_with_next:
      return s[i - 1].match && !s[i].match;
    default:
      return false;
  }
}

void cut(const Piece& piece, const std::vector<Segment>& segments, Behavior behavior, std::vector<Piece>& out) {
  for (size_t i = 0; i < segments.size();) {
    size_t next = i + 1;
    while (next < segments.size() && joins(segments, next, behavior)) ++next;
    const size_t begin = segments[i].begin, end = segments[next - 1].end;
    const bool removed = behavior == Behavior::removed && segments[i].match;
    if (!removed && begin < end) out.push_back({piece.text.substr(begin, end - begin), piece.first && begin == 0});
    i = next;
  }
}

class NoPreTokenizer final : public PreTokenizer {
 public:
  std::vector<Piece> apply(const std::vector<Piece>& pieces, Arena&) const override { return pieces; }
};

class Split final : public PreTokenizer {
 public:
  explicit Split(const nlohmann::json& spec)
      : pattern_(spec, "pre_tokenizer Split"),
        behavior_(behavior_of(spec)),
        invert_(fields::flag(spec, "pre_tokenizer Split", "invert", false)) {}

  std::vector<Piece> apply(const std::vector<Piece>& pieces, Arena&) const override {
    std::vector<Piece> out;
    for (const Piece& p : pieces)
      cut(p, segments_of(p.text.size(), pattern_.find_all(p.text), invert_), behavior_, out);
    return out;
  }

 private:
  Pattern pattern_;
  Behavior behavior_;
  bool invert_;
};

class Digits final : public PreTokenizer {
 public:
  explicit Digits(const nlohmann::json& spec)
      : digit_("\\p{N}"),
        behavior_(fields::flag(spec, "pre_tokenizer Digits", "individual_digits", false) ? Behavior::isolated
                                                                                         : Behavior::contiguous) {}

  std::vector<Piece> apply(const std::vector<Piece>& pieces, Arena&) const override {
    std::vector<Piece> out;
    for (const Piece& p : pieces) cut(p, segments_of(p.text.size(), digit_.find_all(p.text), false), behavior_, out);
    return out;
  }

 private:
  Regex digit_;
  Behavior behavior_;
};

/// GPT-2's pre-tokenizer: cuts into words and writes each byte as a character of the byte alphabet.
class ByteLevel final : public PreTokenizer {
 public:
  explicit ByteLevel(const nlohmann::json& spec)
      : prefix_space_(fields::flag(spec, "pre_tokenizer ByteLevel", "add_prefix_space", true)),
        use_regex_(fields::flag(spec, "pre_tokenizer ByteLevel", "use_regex", true)),
        words_(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)") {}

  std::vector<Piece> apply(const std::vector<Piece>& pieces, Arena& arena) const override {
    std::vector<Piece> words;
    for (const Piece& p : pieces) cut_words(with_prefix(p, arena), words);
    return in_byte_alphabet(words, arena);
  }

 private:
  Piece with_prefix(const Piece& p, Arena& arena) const {
    if (!prefix_space_ || p.text.starts_with(' ')) return p;
    return {arena.keep(std::string(" ").append(p.text)), p.first};
  }

  void cut_words(const Piece& p, std::vector<Piece>& out) const {
    if (use_regex_)
      cut(p, segments_of(p.text.size(), words_.find_all(p.text), false), Behavior::isolated, out);
    else
      out.push_back(p);
  }

  static std::vector<Piece> in_byte_alphabet(const std::vector<Piece>& pieces, Arena& arena) {
    std::string all;
    std::vector<size_t> ends;
    for (const Piece& p : pieces) {
      append_as_characters(all, p.text);
      ends.push_back(all.size());
    }
    const std::string_view kept = arena.keep(std::move(all));
    std::vector<Piece> out;
    out.reserve(pieces.size());
    size_t begin = 0;
    for (size_t i = 0; i < pieces.size(); begin = ends[i++])
      out.push_back({kept.substr(begin, ends[i] - begin), pieces[i].first});
    return out;
  }

  bool prefix_space_, use_regex_;
  Regex words_;
};

/// SentencePiece's view of text: spaces become a visible character, and one stands before the text.
class Metaspace final : public PreTokenizer {
 public:
  explicit Metaspace(const nlohmann::json& spec)
      : replacement_(metaspace_replacement(spec)),
        scheme_(prepend_scheme(spec)),
        split_(fields::flag(spec, "pre_tokenizer Metaspace", "split", true)) {}

  std::vector<Piece> apply(const std::vector<Piece>& pieces, Arena& arena) const override {
    std::vector<Piece> out;
    for (const Piece& p : pieces) {
      const Piece spaced{arena.keep(with_spaces(p)), p.first};
      if (split_)
        cut(spaced, segments_of(spaced.text.size(), replacements(spaced.text), false), Behavior::merged_with_next, out);
      else
        out.push_back(spaced);
    }
    return out;
  }

 private:
  std::string with_spaces(const Piece& p) const {
    std::string text;
    for (const char c : p.text) c == ' ' ? text.append(replacement_) : text.append(1, c);
    const bool prepend = scheme_ == PrependScheme::always || (scheme_ == PrependScheme::first && p.first);
    return prepend && !text.starts_with(replacement_) ? replacement_ + text : text;
  }

  std::vector<Regex::Range> replacements(std::string_view text) const {
    std::vector<Regex::Range> found;
    for (size_t at = text.find(replacement_); at != std::string_view::npos;
         at = text.find(replacement_, at + replacement_.size()))
      found.emplace_back(at, at + replacement_.size());
    return found;
  }

  std::string replacement_;
  PrependScheme scheme_;
  bool split_;
};

class PreTokenizerChain final : public PreTokenizer {
 public:
  explicit PreTokenizerChain(const nlohmann::json& spec) {
    for (const nlohmann::json& p : fields::array(spec, "pre_tokenizer Sequence", "pretokenizers")) {
      if (fields::type(p, "pre_tokenizer") == "Sequence")
        fail("tokenizer", "tokenizer.json: a pre_tokenizer Sequence inside a Sequence is not implemented");
      parts_.push_back(make_pre_tokenizer(p));
    }
  }
  std::vector<Piece> apply(const std::vector<Piece>& pieces, Arena& arena) const override {
    std::vector<Piece> out = pieces;
    for (const auto& part : parts_) out = part->apply(out, arena);
    return out;
  }

 private:
  std::vector<std::unique_ptr<PreTokenizer>> parts_;
};

}  // namespace

PrependScheme prepend_scheme(const nlohmann::json& spec) {
  // Older files have only the flag.
  const bool prefix = fields::flag(spec, "Metaspace", "add_prefix_space", true);
  const std::string scheme = fields::text(spec, "Metaspace", "prepend_scheme", prefix ? "always" : "never");
  if (scheme == "never") return PrependScheme::never;
  if (!prefix) fail("tokenizer", "tokenizer.json: Metaspace says prepend_scheme {} but add_prefix_space false", scheme);
  if (scheme == "always") return PrependScheme::always;
  if (scheme == "first") return PrependScheme::first;
  fail("tokenizer", "tokenizer.json: Metaspace: the prepend_scheme {} is not implemented", scheme);
}

std::string metaspace_replacement(const nlohmann::json& spec) {
  std::string replacement = fields::text(spec, "Metaspace", "replacement");
  if (utf8::length(replacement) != 1) fields::bad("Metaspace", "replacement", "one character");
  return replacement;
}

std::unique_ptr<PreTokenizer> make_pre_tokenizer(const nlohmann::json& spec) {
  if (spec.is_null()) return std::make_unique<NoPreTokenizer>();
  const std::string type = fields::type(spec, "pre_tokenizer");
  if (type == "Split") return std::make_unique<Split>(spec);
  if (type == "Digits") return std::make_unique<Digits>(spec);
  if (type == "ByteLevel") return std::make_unique<ByteLevel>(spec);
  if (type == "Metaspace") return std::make_unique<Metaspace>(spec);
  if (type == "Sequence") return std::make_unique<PreTokenizerChain>(spec);
  fail("tokenizer", "tokenizer.json: the pre_tokenizer {} is not implemented", type);
}

}  // namespace awq
