#include "text/tokenizer_file.h"

#include "base/check.h"
#include "text/json_scanner.h"

namespace awq {
namespace {

/// Cuts the two lists out of the text and reads them; what is left is a document of its own.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text), scan_(text, model_.unescaped) {}

  TokenizerFile run() {
    members([&](std::string_view key) { key == "model" && scan_.peek() == '{' ? model() : scan_.skip_value(); });
    if (scan_.peek() != '\0' || scan_.position() != text_.size()) scan_.bad("the end of the file");
    rest_.append(text_.substr(copied_));
    nlohmann::json rest = nlohmann::json::parse(rest_, nullptr, false);
    if (!rest.is_object())
      fail("tokenizer", "tokenizer.json is no valid JSON beside its vocabulary; download it again");
    model_.options = rest.contains("model") ? std::move(rest["model"]) : nlohmann::json();
    rest.erase("model");
    return {std::move(rest), std::move(model_)};
  }

 private:
  template <class F>
  void members(F&& member) {
    scan_.each('{', '}', [&] {
      const std::string_view key = scan_.string();
      scan_.expect(':');
      member(key);
    });
  }

  void model() {
    members([&](std::string_view key) {
      if (key == "vocab") return cut([&] { vocab(); });
      if (key == "merges") return cut([&] { merges(); });
      scan_.skip_value();
    });
  }

  /// What `read` reads does not become part of the rest.
  template <class F>
  void cut(F&& read) {
    scan_.peek();
    rest_.append(text_.substr(copied_, scan_.position() - copied_)).append("null");
    read();
    copied_ = scan_.position();
  }

  void vocab() {
    if (model_.has_ids || model_.has_scores) scan_.bad("one \"vocab\"");
    if (scan_.peek() == '[') {
      model_.has_scores = true;
      return scan_.each('[', ']', [&] { scored_entry(); });
    }
    if (scan_.peek() != '{') return scan_.skip_value();
    model_.has_ids = true;
    members([&](std::string_view text) { model_.vocab.push_back({text, static_cast<double>(scan_.integer())}); });
  }

  void scored_entry() {
    scan_.expect('[');
    const std::string_view text = scan_.string();
    scan_.expect(',');
    model_.vocab.push_back({text, scan_.number()});
    scan_.expect(']');
  }

  void merges() {
    if (model_.has_merges) scan_.bad("one \"merges\"");
    if (scan_.peek() != '[') return scan_.skip_value();
    model_.has_merges = true;
    scan_.each('[', ']', [&] { scan_.peek() == '[' ? listed_merge() : joined_merge(); });
  }

  void listed_merge() {
    scan_.expect('[');
    const std::string_view left = scan_.string();
    scan_.expect(',');
    model_.merges.emplace_back(left, scan_.string());
    scan_.expect(']');
  }

  void joined_merge() {
    const std::string_view pair = scan_.string();
    if (pair.starts_with("#version")) return;
    const size_t space = pair.find(' ');
    if (space == pair.npos || pair.find(' ', space + 1) != pair.npos)
      fail("tokenizer", "tokenizer.json: merge {} should be two tokens: \"a b\" or [\"a\", \"b\"]",
           model_.merges.size());
    model_.merges.emplace_back(pair.substr(0, space), pair.substr(space + 1));
  }

  std::string_view text_;
  ModelFile model_{};
  JsonScanner scan_;
  std::string rest_;
  size_t copied_ = 0;  // of the text, into rest_ or past it
};

}  // namespace

TokenizerFile parse_tokenizer_file(std::string_view text) { return Reader(text).run(); }

}  // namespace awq
