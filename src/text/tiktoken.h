#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "text/tokenizer.h"

namespace awq {

/// From a tiktoken rank file: a line a token, its bytes in base64 and its rank, which is its id. The file does not say
/// how text is split before tokens are merged nor which special tokens there are: `splitting` is a name of
/// model/splitting.h, and `tokenizer_config` (tokenizer_config.json, or null) may list tokens in
/// "added_tokens_decoder". Throws Error.
Tokenizer parse_tiktoken(std::string_view ranks, std::string_view splitting, const nlohmann::json& tokenizer_config);

}  // namespace awq
