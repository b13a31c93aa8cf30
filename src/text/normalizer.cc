#include "text/normalizer.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "text/json_fields.h"
#include "text/pattern.h"
#include "text/unicode.h"

namespace awq {
namespace {

namespace fields = json_fields;

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

class Lowercase final : public Normalizer {
 public:
  std::string apply(std::string text) const override { return lowercase(text); }
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
    const size_t largest = 65536 + 64 * text.size();  // no real sequence comes near: it would be one that explodes
    for (const auto& part : parts_) {
      text = part->apply(std::move(text));
      if (text.size() > largest) fail("tokenizer", "the normalizer makes more than {} bytes of a text", largest);
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

}  // namespace

std::unique_ptr<Normalizer> make_normalizer(const nlohmann::json& spec) {
  if (spec.is_null()) return std::make_unique<NoNormalizer>();
  const std::string type = fields::type(spec, "normalizer");
  if (const auto form = unicode_form(type)) return std::make_unique<Unicode>(*form);
  if (type == "Lowercase") return std::make_unique<Lowercase>();
  if (type == "Prepend") return std::make_unique<Prepend>(fields::insertion(spec, "normalizer Prepend", "prepend"));
  if (type == "Replace") return std::make_unique<Replace>(spec);
  if (type == "Sequence") return std::make_unique<NormalizerChain>(spec);
  fail("tokenizer", "tokenizer.json: the normalizer {} is not implemented", type);
}

}  // namespace awq
