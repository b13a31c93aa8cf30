#pragma once
#include <cstdint>
#include <span>
#include <string_view>

namespace awq {

enum class PromptKind : uint8_t { text, code, math, chat };

/// A beginning that a model is asked to go on from when it writes its own calibration text.
struct CalibrationPrompt {
  PromptKind kind;  // chat: a user's message, for the model's chat template; everything else: a text's first words
  std::string_view text;  // UTF-8
};

/// Written for this project, half of them in English; the kinds and languages are spread over the list, so that its
/// first few dozen are a fair sample of it.
std::span<const CalibrationPrompt> calibration_prompts();

}  // namespace awq
