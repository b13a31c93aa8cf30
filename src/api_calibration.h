#pragma once
// Calibration tokens for awq::quantize, from a file or from the model itself.
#include "awq/awq.h"
#include "engine/runtime.h"

namespace awq {

struct CalibrationSet {
  std::vector<std::vector<int32_t>> sequences;  // all of the same length
  CalibrationReport report;
};

/// Of the token ids, little-endian 32-bit.
std::string sha256_of(std::span<const std::vector<int32_t>> sequences);

/// .txt: one text. .jsonl: a line is {"text": ...} or {"messages": [...]}, the latter rendered by the model's template.
/// Texts are encoded, joined in file order and cut into sequences; each begins with the tokenizer's BOS where it has
/// one. Throws Error if nothing usable is in it.
CalibrationSet read_calibration(const std::filesystem::path& file, const TextSide& text, int sequences, int length);

/// Sampled from the float model, started from the built-in prompts.
CalibrationSet self_calibration(Device& device, const Checkpoint& source, const TextSide& text, int sequences,
                                int length, double temperature, uint64_t seed, const OnProgress& progress);

}  // namespace awq
