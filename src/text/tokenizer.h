#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/decoder.h"
#include "text/marked_text.h"

namespace awq {

struct TokenizerParts;

/// Text to token ids and back, as the Hugging Face `tokenizers` library defines it by tokenizer.json: added tokens are
/// cut out, the rest is normalized, pre-tokenized and encoded by the model. Immutable and cheap to copy; const methods
/// may be called from several threads.
class Tokenizer {
 public:
  /// From the text of tokenizer.json. `tokenizer_config` (tokenizer_config.json) may be null; it adds the names of the
  /// BOS and EOS tokens and added tokens that tokenizer.json lacks. Truncation and padding settings are not applied.
  /// Throws Error naming the component that is damaged or not implemented.
  static Tokenizer parse(std::string_view tokenizer_json, const nlohmann::json& tokenizer_config);
  static Tokenizer from_json(const nlohmann::json& tokenizer_json, const nlohmann::json& tokenizer_config);
  /// From parts whose added tokens are indexed.
  explicit Tokenizer(std::shared_ptr<const TokenizerParts> parts) : parts_(std::move(parts)) {}

  /// Invalid UTF-8 counts as U+FFFD. `add_special` puts in what the post-processor adds (BOS for most models);
  /// with `parse_special` the text of a special token, such as "<|im_end|>", becomes its id; without, it is plain text.
  /// Keep it off for text that users write.
  std::vector<int32_t> encode(std::string_view text, bool add_special, bool parse_special) const;

  /// A chat that a template has written: special tokens are special where the template wrote them, and plain text where
  /// the conversation did, which is marked. Adds nothing around it. Throws Error if it is not valid UTF-8.
  std::vector<int32_t> encode_chat(const MarkedText& chat) const;

  /// Ids that no token has decode to nothing, as in the reference: a model's head may be padded beyond its vocabulary.
  std::string decode(std::span<const int32_t> ids, bool skip_special = false) const;

  /// The token as the vocabulary spells it ("Ġthe", "<0x0A>"); empty for an id that no token has.
  std::string token_text(int32_t id) const;
  std::optional<int32_t> id_of(std::string_view token_text) const;
  bool is_special(int32_t id) const;
  /// One more than the largest id.
  int32_t vocab_size() const;
  std::optional<int32_t> bos() const;
  std::optional<int32_t> eos() const;

 private:
  friend class StreamDecoder;

  std::shared_ptr<const TokenizerParts> parts_;
};

/// Decodes while tokens arrive. The pieces joined are decode() of the whole sequence, and none ends inside a
/// character. Where bytes are tokens of their own (Llama 2), a run of them is held back until it ends, because one bad
/// byte changes how the whole run reads. One per answer; not thread-safe.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = false);
  StreamDecoder(const StreamDecoder&) = delete;
  StreamDecoder& operator=(const StreamDecoder&) = delete;
  std::string push(int32_t id);
  /// What was held back. Nothing may be pushed afterwards.
  std::string flush();

 private:
  std::shared_ptr<const TokenizerParts> parts_;
  bool skip_special_;
  std::string out_;  // written by the last step
  std::vector<std::unique_ptr<DecoderStep>> steps_;
};

}  // namespace awq
