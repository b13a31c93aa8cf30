#include "text/decoder.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "text/byte_alphabet.h"
#include "text/byte_token.h"
#include "text/json_fields.h"
#include "text/pattern.h"
#include "text/pre_tokenizer.h"
#include "text/python_text.h"
#include "text/utf8.h"

namespace awq {
namespace {

namespace fields = json_fields;

/// A step that needs the whole token.
class WholeToken : public DecoderStep {
 public:
  void text(std::string_view part) final { token_.append(part); }
  void end() final {
    token(token_);
    token_.clear();
  }
  void finish() override { next().finish(); }

 protected:
  virtual void token(std::string_view text) = 0;
  void emit(std::string_view text) {
    next().text(text);
    next().end();
  }

 private:
  std::string token_;
};

class Replace final : public WholeToken {
 public:
  Replace(std::shared_ptr<const Pattern> pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}

 private:
  void token(std::string_view text) override { emit(pattern_->replace_all(text, content_)); }

  std::shared_ptr<const Pattern> pattern_;
  std::string content_;
};

/// Tokens <0xXX> are bytes. A run of them is text if all of it is valid UTF-8, and one U+FFFD a byte if not, so nothing
/// of a run can be emitted before its end.
class ByteFallback final : public WholeToken {
 public:
  void finish() override {
    flush();
    next().finish();
  }

 private:
  void token(std::string_view text) override {
    if (const auto byte = byte_of_token(text)) {
      run_.push_back(*byte);
      return;
    }
    flush();
    emit(text);
  }

  void flush() {
    if (run_.empty()) return;
    if (utf8::valid(run_))
      emit(run_);
    else
      for (size_t i = 0; i < run_.size(); ++i) emit(utf8::encode(utf8::replacement));
    run_.clear();
  }

  std::string run_;
};

class Fuse final : public DecoderStep {
 public:
  void text(std::string_view part) override { next().text(part); }
  void end() override {}
  void finish() override {
    next().end();
    next().finish();
  }
};

/// Removes up to `start` characters `content` from the front of each token and up to `stop` from its back.
class Strip final : public DecoderStep {
 public:
  Strip(std::string content, size_t start, size_t stop) : content_(std::move(content)), start_(start), stop_(stop) {
    end_token();
  }

  void text(std::string_view part) override {
    pending_.append(part);
    while (cuts_left_ > 0 && pending_.starts_with(content_)) {
      pending_.erase(0, content_.size());
      --cuts_left_;
    }
    if (pending_.empty()) return;
    cuts_left_ = 0;
    release(pending_.size() - back_run());
  }
  void end() override {
    release(pending_.size() - back_run());
    end_token();
    next().end();
  }
  void finish() override { next().finish(); }

 private:
  // What may still turn out to be the stripped end of the token: at most `stop` characters.
  size_t back_run() const {
    size_t n = 0;
    for (size_t i = 0; i < stop_ && std::string_view(pending_).substr(0, pending_.size() - n).ends_with(content_); ++i)
      n += content_.size();
    return n;
  }
  void release(size_t bytes) {
    next().text(std::string_view(pending_).substr(0, bytes));
    pending_.erase(0, bytes);
  }
  void end_token() {
    pending_.clear();
    cuts_left_ = start_;
  }

  std::string content_, pending_;
  size_t start_, stop_, cuts_left_ = 0;
};

/// Undoes the byte alphabet. A token with another character counts as its own UTF-8. The whole becomes one token.
class ByteLevel final : public WholeToken {
 public:
  void finish() override {
    next().text(bytes_.flush());
    next().end();
    next().finish();
  }

 private:
  void token(std::string_view text) override {
    std::string bytes;
    for (size_t pos = 0; pos < text.size();) {
      const auto byte = byte_of_character(utf8::next(text, pos));
      if (!byte) {
        bytes = text;
        break;
      }
      bytes.push_back(static_cast<char>(*byte));
    }
    if (const std::string whole = bytes_.push(bytes); !whole.empty()) next().text(whole);
  }

  utf8::Stream bytes_;
};

class Metaspace final : public WholeToken {
 public:
  Metaspace(std::string replacement, bool drop_first) : replacement_(std::move(replacement)), drop_(drop_first) {}

 private:
  void token(std::string_view text) override {
    std::string out;
    for (size_t pos = 0; pos < text.size();) {
      if (!text.substr(pos).starts_with(replacement_)) {
        out.push_back(text[pos++]);
        continue;
      }
      if (!drop_) out.push_back(' ');
      pos += replacement_.size();
    }
    drop_ = false;
    emit(out);
  }

  std::string replacement_;
  bool drop_;  // the next token is the first, and its replacements stand for no space
};

/// Blanks before punctuation and in front of English contractions go.
std::string cleaned(std::string text) {
  constexpr std::pair<std::string_view, std::string_view> rules[] = {
      {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
      {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : rules)
    for (size_t at = text.find(from); at != text.npos; at = text.find(from, at + to.size()))
      text.replace(at, from.size(), to);
  return text;
}

/// BERT's: a token that does not continue a word stands behind a blank.
class WordPieceDecoder final : public WholeToken {
 public:
  WordPieceDecoder(std::string prefix, bool cleanup) : prefix_(std::move(prefix)), cleanup_(cleanup) {}

 private:
  void token(std::string_view text) override {
    std::string out(text);
    if (!first_ && text.starts_with(prefix_))
      out.erase(0, prefix_.size());
    else if (!first_)
      out.insert(0, " ");
    first_ = false;
    emit(cleanup_ ? cleaned(std::move(out)) : out);
  }

  std::string prefix_;
  bool cleanup_, first_ = true;
};

/// Speech recognition's: of a token in a row one counts, padding is nothing, and a token of its own is the blank.
class CtcDecoder final : public WholeToken {
 public:
  CtcDecoder(std::string padding, std::string blank, bool cleanup)
      : padding_(std::move(padding)), blank_(std::move(blank)), cleanup_(cleanup) {}

 private:
  void token(std::string_view text) override {
    if (last_ == text) return;
    last_ = text;
    std::string out = python::replace(text, padding_, "", -1);
    if (cleanup_) out = python::replace(cleaned(std::move(out)), blank_, " ", -1);
    if (!out.empty()) emit(out);
  }

  std::string padding_, blank_;
  bool cleanup_;
  std::optional<std::string> last_;
};

/// The end of a word becomes a blank, and nothing behind the last token.
class BpeDecoder final : public WholeToken {
 public:
  explicit BpeDecoder(std::string suffix) : suffix_(std::move(suffix)) {}
  void finish() override {
    if (held_) emit(without_suffix(*held_, ""));
    next().finish();
  }

 private:
  void token(std::string_view text) override {
    if (held_) emit(without_suffix(*held_, " "));
    held_ = text;
  }
  std::string without_suffix(const std::string& text, std::string_view with) const {
    std::string out;
    size_t done = 0;
    for (size_t at = text.find(suffix_); at != text.npos; at = text.find(suffix_, done)) {
      out.append(text, done, at - done).append(with);
      done = at + suffix_.size();
    }
    return out.append(text, done);
  }

  std::string suffix_;
  std::optional<std::string> held_;  // the last token so far
};

class JoinBySpaces final : public WholeToken {
 private:
  void token(std::string_view text) override {
    emit(first_ ? std::string(text) : std::string(" ").append(text));
    first_ = false;
  }
  bool first_ = true;
};

DecoderFactory make_strip(const nlohmann::json& spec) {
  const auto count = [&](std::string_view key) {
    const nlohmann::json* v = fields::find(spec, key);
    return v ? static_cast<size_t>(fields::index(*v, "decoder Strip", key, 1 << 16)) : size_t(0);
  };
  std::string content = fields::text(spec, "decoder Strip", "content");
  if (utf8::length(content) != 1) fields::bad("decoder Strip", "content", "one character");
  return
      [content, start = count("start"), stop = count("stop")] { return std::make_unique<Strip>(content, start, stop); };
}

void append_decoder(const nlohmann::json& spec, std::vector<DecoderFactory>& steps) {
  const std::string type = fields::type(spec, "decoder");
  if (type == "Replace") {
    const auto pattern = std::make_shared<const Pattern>(spec, "decoder Replace");
    steps.emplace_back([pattern, content = fields::insertion(spec, "decoder Replace", "content")] {
      return std::make_unique<Replace>(pattern, content);
    });
  } else if (type == "ByteFallback") {
    steps.emplace_back([] { return std::make_unique<ByteFallback>(); });
  } else if (type == "Fuse") {
    steps.emplace_back([] { return std::make_unique<Fuse>(); });
  } else if (type == "Strip") {
    steps.push_back(make_strip(spec));
  } else if (type == "ByteLevel") {
    steps.emplace_back([] { return std::make_unique<ByteLevel>(); });
  } else if (type == "Metaspace") {
    const bool drop = prepend_scheme(spec) != PrependScheme::never;
    steps.emplace_back(
        [replacement = metaspace_replacement(spec), drop] { return std::make_unique<Metaspace>(replacement, drop); });
  } else if (type == "WordPiece") {
    steps.emplace_back([prefix = fields::text(spec, "decoder WordPiece", "prefix"),
                        cleanup = fields::flag(spec, "decoder WordPiece", "cleanup", true)] {
      return std::make_unique<WordPieceDecoder>(prefix, cleanup);
    });
  } else if (type == "CTC") {
    steps.emplace_back([padding = fields::text(spec, "decoder CTC", "pad_token"),
                        blank = fields::text(spec, "decoder CTC", "word_delimiter_token"),
                        cleanup = fields::flag(spec, "decoder CTC", "cleanup", true)] {
      return std::make_unique<CtcDecoder>(padding, blank, cleanup);
    });
  } else if (type == "BPEDecoder") {
    std::string suffix = fields::text(spec, "decoder BPEDecoder", "suffix");
    if (suffix.empty()) fields::bad("decoder BPEDecoder", "suffix", "a string that is not empty");
    steps.emplace_back([suffix] { return std::make_unique<BpeDecoder>(suffix); });
  } else {
    fail("tokenizer", "tokenizer.json: the decoder {} is not implemented{}", type,
         type == "Sequence" ? " inside a Sequence" : "");
  }
}

/// Each Replace may make a text several times longer. Published decoders have one.
void check_growth(const nlohmann::json& decoders) {
  constexpr auto most = 3;
  const auto is_replace = [](const nlohmann::json& d) { return fields::type(d, "decoder") == "Replace"; };
  if (std::count_if(decoders.begin(), decoders.end(), is_replace) > most)
    fail("tokenizer", "tokenizer.json: a decoder with more than {} Replace is not plausible", most);
}

}  // namespace

std::vector<DecoderFactory> make_decoder(const nlohmann::json& spec) {
  std::vector<DecoderFactory> steps;
  if (spec.is_null()) {
    steps.emplace_back([] { return std::make_unique<JoinBySpaces>(); });
  } else if (fields::type(spec, "decoder") == "Sequence") {
    for (const nlohmann::json& d : fields::array(spec, "decoder Sequence", "decoders")) append_decoder(d, steps);
    check_growth(fields::array(spec, "decoder Sequence", "decoders"));
  } else {
    append_decoder(spec, steps);
  }
  return steps;
}

}  // namespace awq
