#include "text/sentencepiece_text.h"

#include "base/check.h"
#include "text/byte_token.h"
#include "text/utf8.h"

namespace awq {
namespace {

constexpr std::string_view kMark = "\u2581";

class SentencePieceNormalizer final : public Normalizer {
 public:
  explicit SentencePieceNormalizer(const SentencePieceRules& rules) : rules_(rules) {}

  std::string apply(std::string text) const override {
    std::string_view rest = text;
    while (rules_.remove_spaces && !rest.empty()) {
      const Step step = next(rest);
      if (step.text != " ") break;
      rest.remove_prefix(step.length);
    }
    if (rest.empty()) return {};
    std::string out(rules_.add_space && !rules_.space_behind ? space() : "");
    append(rest, out);
    while (rules_.remove_spaces && out.ends_with(space())) out.resize(out.size() - space().size());
    if (rules_.add_space && rules_.space_behind) out.append(space());
    if (!utf8::valid(out))
      fail("tokenizer", "SentencePiece's normalization makes invalid UTF-8; is the model damaged?");
    return out;
  }

 private:
  struct Step {
    std::string_view text;
    size_t length;  // of what it stands for
  };

  std::string_view space() const { return rules_.mark_spaces ? kMark : std::string_view(" "); }

  void append(std::string_view rest, std::string& out) const {
    const size_t largest = 65536 + 64 * rest.size();
    bool after_space = rules_.remove_spaces;
    while (!rest.empty()) {
      Step step = next(rest);
      rest.remove_prefix(step.length);
      while (after_space && step.text.starts_with(' ')) step.text.remove_prefix(1);
      for (const char c : step.text) c == ' ' ? out.append(space()) : out.append(1, c);
      if (!step.text.empty()) after_space = rules_.remove_spaces && step.text.ends_with(' ');
      if (out.size() > largest) fail("tokenizer", "the normalizer makes more than {} bytes of a text", largest);
    }
  }

  Step next(std::string_view rest) const {
    if (const size_t n = symbol(rest)) return {rest.substr(0, n), n};
    if (const auto match = rules_.map ? rules_.map->longest(rest) : std::nullopt)
      return {match->replacement, match->length};
    const utf8::Scan at = utf8::scan(rest, 0);
    return at.valid ? Step{rest.substr(0, at.length), at.length} : Step{"\uFFFD", 1};
  }

  size_t symbol(std::string_view rest) const {
    size_t longest = 0;
    int32_t node = rules_.has_symbols ? 0 : -1;
    for (size_t i = 0; i < rest.size() && node >= 0; ++i) {
      node = rules_.symbols.child(node, rest[i]);
      if (node >= 0 && rules_.symbols.value(node) >= 0) longest = i + 1;
    }
    return longest;
  }

  SentencePieceRules rules_;
};

/// Marks become blanks but for those before the text, bytes become characters where they make one, else one U+FFFD
/// each. The whole becomes one token.
class SentencePieceDecoder final : public DecoderStep {
 public:
  SentencePieceDecoder(const SentencePieceRules& rules, std::string unknown, std::string surface)
      : drops_one_(rules.add_space || rules.remove_spaces),
        drops_all_(rules.remove_spaces),
        unknown_(std::move(unknown)),
        surface_(std::move(surface)) {}

  void text(std::string_view part) override { token_.append(part); }
  void end() override {
    if (const auto byte = byte_of_token(token_)) {
      bytes_.push_back(*byte);
      release(false);
    } else {
      release(true);
      piece(token_);
    }
    token_.clear();
  }
  void finish() override {
    release(true);
    next().end();
    next().finish();
  }

 private:
  void emit(std::string_view text) {
    begun_ = begun_ || !text.empty();
    next().text(text);
  }

  /// The bytes that are characters by now; with `all` the others too.
  void release(bool all) {
    while (!bytes_.empty()) {
      const utf8::Scan at = utf8::scan(bytes_, 0);
      if (at.incomplete && !all) return;
      emit(at.valid ? std::string_view(bytes_).substr(0, at.length) : "\uFFFD");
      bytes_.erase(0, at.valid ? at.length : 1);
    }
  }

  void piece(std::string_view text) {
    if (text == unknown_) return emit(surface_);
    if (!begun_ && drops_one_ && text.starts_with(kMark)) {
      text.remove_prefix(kMark.size());
      begun_ = !drops_all_;
    }
    std::string out;
    for (size_t pos = 0; pos < text.size();) {
      const bool mark = text.substr(pos).starts_with(kMark);
      out.push_back(mark ? ' ' : text[pos]);
      pos += mark ? kMark.size() : 1;
    }
    emit(out);
  }

  bool drops_one_, drops_all_, begun_ = false;
  std::string unknown_, surface_, token_, bytes_;
};

}  // namespace

std::unique_ptr<Normalizer> sentencepiece_normalizer(const SentencePieceRules& rules) {
  return std::make_unique<SentencePieceNormalizer>(rules);
}

DecoderFactory sentencepiece_decoder(const SentencePieceRules& rules, std::string_view unknown,
                                     std::string_view surface) {
  // The flags alone: the rules' tables are large.
  SentencePieceRules flags;
  flags.add_space = rules.add_space;
  flags.remove_spaces = rules.remove_spaces;
  return [flags, unknown = std::string(unknown), surface = std::string(surface)] {
    return std::make_unique<SentencePieceDecoder>(flags, unknown, surface);
  };
}

}  // namespace awq
