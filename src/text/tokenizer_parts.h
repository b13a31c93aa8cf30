#pragma once
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "text/added_tokens.h"
#include "text/decoder.h"
#include "text/normalizer.h"
#include "text/post_processor.h"
#include "text/pre_tokenizer.h"
#include "text/token_model.h"

namespace awq {

/// What a tokenizer is made of, whatever file it was read from.
struct TokenizerParts {
  std::unique_ptr<Normalizer> normalizer;
  PreTokenizing pre_tokenizer;
  std::unique_ptr<TokenModel> model;
  std::vector<DecoderFactory> decoder;
  PostProcessor post_processor;
  std::map<int32_t, AddedToken> added;
  std::unordered_map<std::string, int32_t> added_ids;
  AddedTokenMatcher raw, normalized;  // what is looked for before and after normalization
  std::optional<int32_t> bos, eos;
  int32_t size = 0;
  bool raw_bytes = false;  // the normalizer takes invalid UTF-8 too, and makes it valid

  /// Of tokenizer_config.json, which may be null. It repeats the added tokens of tokenizer.json; where it differs it
  /// wins, as when transformers loads the folder.
  void read_config_tokens(const nlohmann::json& config);
  /// The token that its `key` names: a token's text, or an object with it as "content".
  std::optional<int32_t> named_token(const nlohmann::json& config, std::string_view key) const;
  /// Adds what added tokens are found by. Throws Error if they contradict the vocabulary.
  void index_added_tokens();

  const AddedToken* added_token(int32_t id) const {
    const auto it = added.find(id);
    return it == added.end() ? nullptr : &it->second;
  }
  /// What decoding starts from; null if no token has the id.
  const std::string* text_of(int32_t id) const {
    const AddedToken* token = added_token(id);
    return token ? &token->pattern : model->vocabulary().text_of(id);
  }
  std::optional<int32_t> id_of(std::string_view text) const {
    const auto it = added_ids.find(std::string(text));
    return it != added_ids.end() ? std::optional(it->second) : model->vocabulary().id_of(text);
  }
  bool is_special(int32_t id) const {
    const AddedToken* token = added_token(id);
    return token && token->special;
  }
};

}  // namespace awq
