#pragma once
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "io/gguf_writer.h"
#include "model/spec.h"

namespace awq {

/// Adds tokenizer.ggml.* and the chat template, made of the texts of tokenizer.json, tokenizer_config.json,
/// generation_config.json and chat_template.jinja, each of which may be absent. Throws Error unless the reader makes
/// the same vocabulary, merges and splitting of them.
void add_gguf_tokenizer(GgufMetadata& m, const std::map<std::string, std::string>& files, const nlohmann::json& config,
                        const ModelSpec& spec);

}  // namespace awq
