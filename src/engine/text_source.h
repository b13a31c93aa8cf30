#pragma once
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace awq {

/// The files that say what a model's text is, wherever they are: in a folder, made of a GGUF's metadata, or one file
/// alone. Only these are read.
class TextSource {
 public:
  /// The content of a file of that name; empty where there is none.
  using Read = std::function<std::string(std::string_view name)>;

  explicit TextSource(Read read);
  /// Of a folder, a .gguf file, or a tokenizer's file (tokenizer.json, a SentencePiece model, a tiktoken rank file).
  /// Throws Error if there is no such path.
  static TextSource open(const std::filesystem::path& path);

  /// From tokenizer.json, else tokenizer.model, else a rank file. `splitting` is needed for the last only
  /// (text/tiktoken.h). Throws Error if there is none.
  Tokenizer tokenizer(std::string_view splitting = {}) const;
  /// The chat template's source; empty where there is none.
  std::string chat_template() const;
  /// Options with the texts of the BOS and EOS tokens.
  ChatTemplate::Options template_options() const;
  const nlohmann::json& tokenizer_config() const { return config_; }

 private:
  Read read_;
  nlohmann::json config_;  // tokenizer_config.json, or null
};

/// A JSON file of a model; null where it has none. Throws Error if it is damaged.
nlohmann::json json_file(const TextSource::Read& read, std::string_view name);
/// The text of a token that tokenizer_config.json names by `key`; empty where it does not.
std::string token_text(const nlohmann::json& config, const char* key);

}  // namespace awq
