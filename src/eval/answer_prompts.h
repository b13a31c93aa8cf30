#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/runtime.h"

namespace awq {

/// What models are asked to write on from.
struct AnswerPrompt {
  std::string kind;  // "reasoning", "code", "dialogue" or "text"
  std::string text;  // or of a conversation its last message
  nlohmann::ordered_json messages = nullptr;
};

/// The first `count` of those written for this project, whose kinds take turns. Throws Error where there are fewer.
std::vector<AnswerPrompt> built_in_prompts(int count);
/// Of a .txt file, a line each, or JSON lines: {"prompt": ...} or {"messages": [{"role": ..., "content": ...}, ...]},
/// and "kind", which may be left out: "text". Throws Error, naming the line.
std::vector<AnswerPrompt> read_prompts(const std::filesystem::path& file);
/// A conversation by the model's template, ready for an answer; where there is none, its last message as it stands.
std::vector<int32_t> encode_prompt(const AnswerPrompt& prompt, const TextSide& text);

}  // namespace awq
