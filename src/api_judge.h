#pragma once
// What is found out of a finished quantized model before it gets its name: gates, and answers beside the original's.
#include "awq/awq.h"
#include "engine/runtime.h"

namespace awq {

constexpr int kAnswers = 5;
constexpr int kGateWindows = 16;
/// Tokens of a window that gates are measured on.
int gate_window(const ModelSpec& spec);

/// KL and top-1 agreement of the model in the folder `quantized` on options.gate_text, or on text that `source` writes.
/// `original`: where `source` was opened.
GateReport measure_gate(Device& device, const Checkpoint& source, const std::filesystem::path& original,
                        const std::filesystem::path& quantized, const QuantizeOptions& options,
                        const OnProgress& progress);
/// The tokens of options.gate_text, of which there is a window at least. Throws Error otherwise.
std::vector<int32_t> gate_tokens(const Checkpoint& source, const QuantizeOptions& options);

/// The first options.answers built-in prompts, answered by both.
std::vector<AnswerReport> both_answer(Device& device, const Checkpoint& source, const std::filesystem::path& quantized,
                                      const QuantizeOptions& options, const OnProgress& progress);

}  // namespace awq
