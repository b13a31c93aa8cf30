#pragma once
#include "engine/runtime.h"

namespace awq {

/// One text of a file, as tokens without a BOS of our own.
struct Document {
  std::vector<int32_t> tokens{};
  std::vector<uint8_t> counted{};  // a value a token, 0 where it is part of a prompt; empty unless asked for
  bool chat = false;
};

/// Of a chat, the tokens of the assistant's answers count, with the token that ends an answer. An answer is what
/// changes in the rendered text with its content; a token that straddles its ends belongs to it.
Document encode_answers(const nlohmann::ordered_json& messages, const TextSide& text);

/// Each line of a .jsonl text: {"text": "..."} as it is, {"messages": [...]} rendered by the model's chat template.
/// With `mask_prompts`, encode_answers decides what counts of a chat, and all of a plain text does. Empty lines are
/// passed over. Throws Error, naming `operation`, `name` and the line, on anything else.
std::vector<Document> encode_json_lines(std::string_view content, const TextSide& text, std::string_view operation,
                                        std::string_view name, bool mask_prompts = false);

}  // namespace awq
