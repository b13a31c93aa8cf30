#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "text/tokenizer.h"

namespace awq {

/// From a SentencePiece model (`tokenizer.model`, a protobuf message), of type BPE or Unigram, computed as the
/// sentencepiece library does. `tokenizer_config` (tokenizer_config.json) may be null; its "add_bos_token",
/// "add_eos_token" and "added_tokens_decoder" count. Without the first two nothing is put around a text. Throws Error.
///
/// With `parse_special`, control pieces ("<s>") in a text become their ids, which the library never does; decoding
/// writes them unless they are skipped.
Tokenizer parse_sentencepiece(std::string_view model, const nlohmann::json& tokenizer_config);

}  // namespace awq
