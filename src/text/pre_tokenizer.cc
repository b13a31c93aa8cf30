#include "text/pre_tokenizer.h"

#include <functional>
#include <nlohmann/json.hpp>
#include <vector>

#include "text/byte_alphabet.h"
#include "text/json_fields.h"
#include "text/pattern.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace awq {
namespace {

namespace fields = json_fields;

/// What becomes of the matches of a Split, as the format names it.
enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

Behavior behavior_of(const nlohmann::json& spec, std::string_view component) {
  const std::string name = fields::text(spec, component, "behavior");
  if (name == "Removed") return Behavior::removed;
  if (name == "Isolated") return Behavior::isolated;
  if (name == "MergedWithPrevious") return Behavior::merged_with_previous;
  if (name == "MergedWithNext") return Behavior::merged_with_next;
  if (name == "Contiguous") return Behavior::contiguous;
  fail("tokenizer", "tokenizer.json: {}: the behavior {} is not implemented", component, name);
}

/// Takes the matches in a text from left to right and hands on the pieces that they and the text between them make.
class Cutter {
 public:
  Cutter(const Stretch& piece, Behavior behavior, StretchSink sink, bool invert = false)
      : piece_(piece), behavior_(behavior), sink_(sink), invert_(invert) {}

  void match(Regex::Range m) {
    if (done_ < m.first) segment({done_, m.first, invert_});
    segment({m.first, m.second, !invert_});
    done_ = m.second;
  }
  void finish() {
    if (done_ < piece_.text.size()) segment({done_, piece_.text.size(), invert_});
    flush();
  }

 private:
  struct Segment {
    size_t begin = 0, end = 0;
    bool match = false;
  };

  void segment(const Segment& s) {
    if (any_ && joins(s)) {
      last_ = s;
      return;
    }
    flush();
    begin_ = s.begin;
    last_ = s;
    any_ = true;
  }

  /// Whether a segment goes into the same piece as the one before. Of two matches in a row the second stands alone when
  /// matches merge with the previous, the first when they merge with the next.
  bool joins(const Segment& s) const {
    switch (behavior_) {
      case Behavior::contiguous:
        return s.match == last_.match;
      case Behavior::merged_with_previous:
        return s.match && !last_.match;
      case Behavior::merged_with_next:
        return last_.match && !s.match;
      default:
        return false;
    }
  }

  void flush() {
    const bool removed = behavior_ == Behavior::removed && last_.match;
    if (any_ && !removed && begin_ < last_.end)
      sink_({piece_.text.substr(begin_, last_.end - begin_), piece_.first && begin_ == 0});
  }

  const Stretch& piece_;
  Behavior behavior_;
  StretchSink sink_;
  bool invert_, any_ = false;
  size_t done_ = 0, begin_ = 0;  // of the matches; of the piece that is being joined
  Segment last_;                 // of that piece
};

class Split final : public PreTokenizer {
 public:
  explicit Split(const nlohmann::json& spec)
      : pattern_(spec, "pre_tokenizer Split"),
        behavior_(behavior_of(spec, "pre_tokenizer Split")),
        invert_(fields::flag(spec, "pre_tokenizer Split", "invert", false)) {}

  void apply(const Stretch& piece, Arena&, StretchSink sink) const override {
    Cutter cutter(piece, behavior_, sink, invert_);
    pattern_.for_each(piece.text, [&](Regex::Range m) { cutter.match(m); });
    cutter.finish();
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

  void apply(const Stretch& piece, Arena&, StretchSink sink) const override {
    Cutter cutter(piece, behavior_, sink);
    digit_.for_each(piece.text, [&](Regex::Range m) { cutter.match(m); });
    cutter.finish();
  }

 private:
  Regex digit_;
  Behavior behavior_;
};

/// Cuts at characters of a kind.
class CharacterSplit final : public PreTokenizer {
 public:
  using Kind = std::function<bool(char32_t)>;
  CharacterSplit(Kind kind, Behavior behavior) : kind_(std::move(kind)), behavior_(behavior) {}

  void apply(const Stretch& piece, Arena&, StretchSink sink) const override {
    Cutter cutter(piece, behavior_, sink);
    for (size_t pos = 0; pos < piece.text.size();) {
      const size_t begin = pos;
      if (kind_(utf8::next(piece.text, pos))) cutter.match({begin, pos});
    }
    cutter.finish();
  }

 private:
  Kind kind_;
  Behavior behavior_;
};

/// Runs of word characters and runs of others are pieces; white space is dropped.
class Whitespace final : public PreTokenizer {
 public:
  void apply(const Stretch& piece, Arena&, StretchSink sink) const override {
    const std::string_view text = piece.text;
    for (size_t begin = 0; begin < text.size();) {
      size_t end = begin;
      const Kind kind = kind_of(utf8::next(text, end));
      for (size_t at = end; at < text.size() && kind_of(utf8::next(text, at)) == kind;) end = at;
      if (kind != Kind::space) sink({text.substr(begin, end - begin), piece.first && begin == 0});
      begin = end;
    }
  }

 private:
  enum class Kind { space, word, other };
  static Kind kind_of(char32_t c) {
    return utf8::is_word(c) ? Kind::word : utf8::is_space(c) ? Kind::space : Kind::other;
  }
};

/// GPT-2's words. What writes their bytes as characters is ByteAlphabet.
class ByteLevel final : public PreTokenizer {
 public:
  explicit ByteLevel(const nlohmann::json& spec)
      : prefix_space_(fields::flag(spec, "pre_tokenizer ByteLevel", "add_prefix_space", true)),
        use_regex_(fields::flag(spec, "pre_tokenizer ByteLevel", "use_regex", true)),
        words_(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)") {}

  void apply(const Stretch& piece, Arena& arena, StretchSink sink) const override {
    const bool prefix = prefix_space_ && !piece.text.starts_with(' ');
    const Stretch whole = prefix ? Stretch{arena.keep(std::string(" ").append(piece.text)), piece.first} : piece;
    if (!use_regex_) return sink(whole);
    Cutter cutter(whole, Behavior::isolated, sink);
    words_.for_each(whole.text, [&](Regex::Range m) { cutter.match(m); });
    cutter.finish();
  }

 private:
  bool prefix_space_, use_regex_;
  Regex words_;
};

class ByteAlphabet final : public PreTokenizer {
 public:
  void apply(const Stretch& piece, Arena& arena, StretchSink sink) const override {
    std::string characters;
    append_as_characters(characters, piece.text);
    sink({arena.keep(std::move(characters)), piece.first});
  }
};

/// SentencePiece's view of text: spaces become a visible character, and one stands before the text.
class Metaspace final : public PreTokenizer {
 public:
  explicit Metaspace(const nlohmann::json& spec)
      : replacement_(metaspace_replacement(spec)),
        scheme_(prepend_scheme(spec)),
        split_(fields::flag(spec, "pre_tokenizer Metaspace", "split", true)) {}

  void apply(const Stretch& piece, Arena& arena, StretchSink sink) const override {
    const Stretch spaced{arena.keep(with_spaces(piece)), piece.first};
    if (!split_) return sink(spaced);
    Cutter cutter(spaced, Behavior::merged_with_next, sink);
    for (size_t at = spaced.text.find(replacement_); at != spaced.text.npos;
         at = spaced.text.find(replacement_, at + replacement_.size()))
      cutter.match({at, at + replacement_.size()});
    cutter.finish();
  }

 private:
  std::string with_spaces(const Stretch& p) const {
    std::string text;
    for (const char c : p.text) c == ' ' ? text.append(replacement_) : text.append(1, c);
    const bool prepend = scheme_ == PrependScheme::always || (scheme_ == PrependScheme::first && p.first);
    return prepend && !text.starts_with(replacement_) ? replacement_ + text : text;
  }

  std::string replacement_;
  PrependScheme scheme_;
  bool split_;
};

/// A fixed number of characters a piece; the last may have fewer.
class FixedLength final : public PreTokenizer {
 public:
  explicit FixedLength(size_t length) : length_(length) {}

  void apply(const Stretch& piece, Arena&, StretchSink sink) const override {
    for (size_t begin = 0, end = 0; begin < piece.text.size(); begin = end) {
      for (size_t i = 0; i < length_ && end < piece.text.size(); ++i) utf8::next(piece.text, end);
      sink({piece.text.substr(begin, end - begin), piece.first && begin == 0});
    }
  }

 private:
  size_t length_;
};

size_t length_of(const nlohmann::json& spec) {
  const nlohmann::json* v = fields::find(spec, "length");
  const int32_t length = v ? fields::index(*v, "pre_tokenizer FixedLength", "length", 1 << 16) : 5;
  if (length == 0) fields::bad("pre_tokenizer FixedLength", "length", "a positive number");
  return size_t(length);
}

using Steps = std::vector<std::unique_ptr<PreTokenizer>>;

class PreTokenizerChain final : public PreTokenizer {
 public:
  explicit PreTokenizerChain(Steps steps) : steps_(std::move(steps)) {}
  void apply(const Stretch& piece, Arena& arena, StretchSink sink) const override { run(0, piece, arena, sink); }

 private:
  void run(size_t step, const Stretch& piece, Arena& arena, StretchSink sink) const {
    if (step == steps_.size()) return sink(piece);
    steps_[step]->apply(piece, arena, [&](const Stretch& p) { run(step + 1, p, arena, sink); });
  }

  Steps steps_;
};

char32_t delimiter_of(const nlohmann::json& spec) {
  const std::string text = fields::text(spec, "pre_tokenizer CharDelimiterSplit", "delimiter");
  if (utf8::length(text) != 1) fields::bad("pre_tokenizer CharDelimiterSplit", "delimiter", "one character");
  size_t pos = 0;
  return utf8::next(text, pos);
}

void append_characters(CharacterSplit::Kind kind, Behavior behavior, Steps& steps) {
  steps.push_back(std::make_unique<CharacterSplit>(std::move(kind), behavior));
}

void append_step(const nlohmann::json& spec, Steps& steps) {
  const std::string type = fields::type(spec, "pre_tokenizer");
  if (type == "Split") {
    steps.push_back(std::make_unique<Split>(spec));
  } else if (type == "Digits") {
    steps.push_back(std::make_unique<Digits>(spec));
  } else if (type == "ByteLevel") {
    steps.push_back(std::make_unique<ByteLevel>(spec));
    steps.push_back(std::make_unique<ByteAlphabet>());
  } else if (type == "Metaspace") {
    steps.push_back(std::make_unique<Metaspace>(spec));
  } else if (type == "Punctuation") {
    const bool given = fields::find(spec, "behavior") != nullptr;
    append_characters(is_punctuation, given ? behavior_of(spec, "pre_tokenizer Punctuation") : Behavior::isolated,
                      steps);
  } else if (type == "Whitespace") {
    steps.push_back(std::make_unique<Whitespace>());
  } else if (type == "WhitespaceSplit") {
    append_characters(utf8::is_space, Behavior::removed, steps);
  } else if (type == "BertPreTokenizer") {
    append_characters(utf8::is_space, Behavior::removed, steps);
    append_characters(is_punctuation, Behavior::isolated, steps);
  } else if (type == "FixedLength") {
    steps.push_back(std::make_unique<FixedLength>(length_of(spec)));
  } else if (type == "CharDelimiterSplit") {
    append_characters([d = delimiter_of(spec)](char32_t c) { return c == d; }, Behavior::removed, steps);
  } else {
    fail("tokenizer", "tokenizer.json: the pre_tokenizer {} is not implemented{}", type,
         type == "Sequence" ? " inside a Sequence" : "");
  }
}

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

PreTokenizing make_pre_tokenizer(const nlohmann::json& spec) {
  Steps steps;
  if (spec.is_object() && fields::type(spec, "pre_tokenizer") == "Sequence")
    for (const nlohmann::json& p : fields::array(spec, "pre_tokenizer Sequence", "pretokenizers"))
      append_step(p, steps);
  else if (!spec.is_null())
    append_step(spec, steps);
  const bool bytes = !steps.empty() && dynamic_cast<const ByteAlphabet*>(steps.back().get());
  if (bytes) steps.pop_back();
  return {std::make_unique<PreTokenizerChain>(std::move(steps)), bytes};
}

}  // namespace awq
