#pragma once
#include <nlohmann/json_fwd.hpp>

#include "io/gguf.h"

namespace awq {

/// What Hugging Face's config.json of the model would say, for general.architecture llama (also Mistral), qwen2, qwen3
/// and gemma3. Throws Error for other architectures and for metadata that this version does not understand: a key of
/// the architecture that is not known may change what the model computes.
nlohmann::json gguf_config(const Gguf& file);

/// The special tokens: bos_token_id, eos_token_id (a list where the file has several kinds of end) and pad_token_id, as
/// far as the file has them.
nlohmann::json gguf_token_ids(const Gguf& file);

}  // namespace awq
