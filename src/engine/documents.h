#pragma once
#include "engine/runtime.h"

namespace awq {

/// The tokens of each line of a .jsonl text: {"text": "..."} as it is, {"messages": [...]} rendered by the model's chat
/// template; without a BOS of our own. Empty lines are passed over. Throws Error, naming `operation`, `name` and the
/// line, on anything else.
std::vector<std::vector<int32_t>> encode_json_lines(std::string_view content, const TextSide& text,
                                                    std::string_view operation, std::string_view name);

}  // namespace awq
