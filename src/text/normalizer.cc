#include "text/normalizer.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "text/base64.h"
#include "text/byte_alphabet.h"
#include "text/characters_map.h"
#include "text/json_fields.h"
#include "text/pattern.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace awq {
namespace {

namespace fields = json_fields;

/// No real normalizer comes near: it would be one that explodes.
void check_growth(size_t before, size_t after) {
  const size_t largest = 65536 + 64 * before;
  if (after > largest) fail("tokenizer", "the normalizer makes more than {} bytes of a text", largest);
}

class NoNormalizer final : public Normalizer {
 public:
  std::string apply(std::string text) const override { return text; }
};

class Unicode final : public Normalizer {
 public:
  explicit Unicode(UnicodeForm form) : form_(form) {}
  std::string apply(std::string text) const override { return normalize(text, form_); }

 private:
  UnicodeForm form_;
};

/// One that is a function of the text alone.
class Function final : public Normalizer {
 public:
  explicit Function(std::string (*f)(std::string_view)) : f_(f) {}
  std::string apply(std::string text) const override { return f_(text); }

 private:
  std::string (*f_)(std::string_view);
};

class Prepend final : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  std::string apply(std::string text) const override { return text.empty() ? text : prefix_ + text; }

 private:
  std::string prefix_;
};

class Replace final : public Normalizer {
 public:
  explicit Replace(const nlohmann::json& spec)
      : pattern_(spec, "normalizer Replace"), content_(fields::insertion(spec, "normalizer Replace", "content")) {}
  std::string apply(std::string text) const override { return pattern_.replace_all(text, content_); }

 private:
  Pattern pattern_;
  std::string content_;
};

class Strip final : public Normalizer {
 public:
  explicit Strip(const nlohmann::json& spec)
      : left_(fields::flag(spec, "normalizer Strip", "strip_left", true)),
        right_(fields::flag(spec, "normalizer Strip", "strip_right", true)) {}
  std::string apply(std::string text) const override {
    size_t begin = 0, end = text.size();
    for (size_t at = begin; left_ && at < end && utf8::is_space(utf8::next(text, at));) begin = at;
    for (size_t at = end; right_ && at > begin && utf8::is_space(utf8::previous(text, at));) end = at;
    return text.substr(begin, end - begin);
  }

 private:
  bool left_, right_;
};

/// The text with each character rewritten: `f` appends what it becomes.
template <class F>
std::string rewritten(std::string_view text, F&& f) {
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) f(utf8::next(text, pos), out);
  return out;
}

std::string without_marks(std::string_view text) {
  return rewritten(text, [](char32_t c, std::string& out) {
    if (!is_mark(c)) utf8::append(out, c);
  });
}

std::string in_byte_alphabet(std::string_view text) {
  std::string out;
  append_as_characters(out, text);
  return out;
}

/// The rules that SentencePiece took from its NMT predecessor: no control characters, one kind of blank.
std::string nmt(std::string_view text) {
  return rewritten(text, [](char32_t c, std::string& out) {
    const bool dropped =
        (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F;
    const bool blank = c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 || (c >= 0x200B && c <= 0x200F) ||
                       c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
    if (!dropped) utf8::append(out, blank ? U' ' : c);
  });
}

class Bert final : public Normalizer {
 public:
  explicit Bert(const nlohmann::json& spec)
      : clean_(fields::flag(spec, "normalizer BertNormalizer", "clean_text", true)),
        chinese_(fields::flag(spec, "normalizer BertNormalizer", "handle_chinese_chars", true)),
        lowercase_(fields::flag(spec, "normalizer BertNormalizer", "lowercase", true)),
        strip_(fields::flag(spec, "normalizer BertNormalizer", "strip_accents", lowercase_)) {}

  std::string apply(std::string text) const override {
    if (clean_) text = rewritten(text, clean);
    if (chinese_) text = rewritten(text, space_out);
    if (strip_)
      text = rewritten(normalize(text, UnicodeForm::nfd), [](char32_t c, std::string& out) {
        if (!is_nonspacing_mark(c)) utf8::append(out, c);
      });
    return lowercase_ ? lowercase(text) : text;
  }

 private:
  static void clean(char32_t c, std::string& out) {
    const bool blank = c == '\t' || c == '\n' || c == '\r' || utf8::is_space(c);
    if (c == 0 || c == utf8::replacement || (!blank && is_control(c))) return;
    utf8::append(out, blank ? U' ' : c);
  }
  static void space_out(char32_t c, std::string& out) {
    const bool chinese = (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
                         (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
                         (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
                         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
    if (chinese) out.push_back(' ');
    utf8::append(out, c);
    if (chinese) out.push_back(' ');
  }

  bool clean_, chinese_, lowercase_, strip_;
};

/// SentencePiece's table as the tokenizers library applies it: to a user-perceived character of few bytes as a whole,
/// else to its code points; of several entries the shortest.
class Precompiled final : public Normalizer {
 public:
  explicit Precompiled(const nlohmann::json& spec) : map_(bytes_of(spec)) {}

  std::string apply(std::string text) const override {
    std::string out;
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = grapheme_end(text, begin);
      const std::string_view grapheme = std::string_view(text).substr(begin, end - begin);
      const auto whole = grapheme.size() < 6 ? map_.shortest(grapheme) : std::nullopt;
      if (whole)
        out.append(whole->replacement);
      else
        append_characters(grapheme, out);
      check_growth(text.size(), out.size());
      begin = end;
    }
    if (!utf8::valid(out)) fail("tokenizer", "the precompiled normalization makes invalid UTF-8; is the file damaged?");
    return out;
  }

 private:
  static std::string bytes_of(const nlohmann::json& spec) {
    const auto bytes = decode_base64(fields::text(spec, "normalizer Precompiled", "precompiled_charsmap"));
    if (!bytes) fields::bad("normalizer Precompiled", "precompiled_charsmap", "base64");
    return *bytes;
  }
  void append_characters(std::string_view grapheme, std::string& out) const {
    for (size_t pos = 0; pos < grapheme.size();) {
      const size_t begin = pos;
      utf8::next(grapheme, pos);
      const std::string_view character = grapheme.substr(begin, pos - begin);
      const auto match = map_.shortest(character);
      out.append(match ? match->replacement : character);
    }
  }

  CharactersMap map_;
};

class NormalizerChain final : public Normalizer {
 public:
  explicit NormalizerChain(const nlohmann::json& spec) {
    for (const nlohmann::json& n : fields::array(spec, "normalizer Sequence", "normalizers")) {
      if (fields::type(n, "normalizer") == "Sequence")
        fail("tokenizer", "tokenizer.json: a normalizer Sequence inside a Sequence is not implemented");
      parts_.push_back(make_normalizer(n));
    }
  }
  std::string apply(std::string text) const override {
    const size_t before = text.size();
    for (const auto& part : parts_) {
      text = part->apply(std::move(text));
      check_growth(before, text.size());
    }
    return text;
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> parts_;
};

std::optional<UnicodeForm> unicode_form(std::string_view type) {
  if (type == "NFC") return UnicodeForm::nfc;
  if (type == "NFD") return UnicodeForm::nfd;
  if (type == "NFKC") return UnicodeForm::nfkc;
  if (type == "NFKD") return UnicodeForm::nfkd;
  return std::nullopt;
}

std::string (*function_of(std::string_view type))(std::string_view) {
  if (type == "Lowercase") return lowercase;
  if (type == "StripAccents") return without_marks;
  if (type == "ByteLevel") return in_byte_alphabet;
  if (type == "Nmt") return nmt;
  return nullptr;
}

}  // namespace

std::unique_ptr<Normalizer> make_normalizer(const nlohmann::json& spec) {
  if (spec.is_null()) return std::make_unique<NoNormalizer>();
  const std::string type = fields::type(spec, "normalizer");
  if (const auto form = unicode_form(type)) return std::make_unique<Unicode>(*form);
  if (const auto f = function_of(type)) return std::make_unique<Function>(f);
  if (type == "Prepend") return std::make_unique<Prepend>(fields::insertion(spec, "normalizer Prepend", "prepend"));
  if (type == "Replace") return std::make_unique<Replace>(spec);
  if (type == "Strip") return std::make_unique<Strip>(spec);
  if (type == "BertNormalizer") return std::make_unique<Bert>(spec);
  if (type == "Precompiled") return std::make_unique<Precompiled>(spec);
  if (type == "Sequence") return std::make_unique<NormalizerChain>(spec);
  fail("tokenizer", "tokenizer.json: the normalizer {} is not implemented", type);
}

}  // namespace awq
