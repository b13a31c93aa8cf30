#pragma once
#include <cstdint>
#include <deque>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace awq {

/// "model" of a tokenizer.json. Its two long lists are kept flat: a tree of 150,000 entries takes longer to build than
/// everything else together. Texts view the file or `unescaped`, so the file must live as long.
struct ModelFile {
  struct Entry {
    std::string_view text;
    double value;  // an id, a whole number; or a score
  };

  nlohmann::json options;                                             // the other members; vocab and merges are null
  std::vector<Entry> vocab;                                           // of {"text": id, ...} or [["text", score], ...]
  std::vector<std::pair<std::string_view, std::string_view>> merges;  // of ["a b", ...] or [["a", "b"], ...]
  bool has_ids = false, has_scores = false, has_merges = false;
  std::deque<std::string> unescaped{};
};

struct TokenizerFile {
  nlohmann::json rest;  // all but "model"
  ModelFile model;
};

/// Throws Error with the byte where the text is no valid JSON, and for a vocabulary or merges of another form.
TokenizerFile parse_tokenizer_file(std::string_view text);

}  // namespace awq
