#pragma once
// Calibration tokens for whatever quantizes, from files or from the model itself.
#include "awq/awq.h"
#include "engine/runtime.h"

namespace awq {

struct CalibrationSet {
  std::vector<std::vector<int32_t>> sequences;  // all of the same length
  std::vector<uint8_t> counted;  // a value a token of all sequences, 0 where statistics pass it over; empty: all count
  CalibrationReport report;
  std::vector<std::string> warnings;
};

/// Puts in what was left to the recipe and checks `options` against the model.
void complete_calibration(QuantizeOptions& options, const Checkpoint& source, std::string_view operation);

/// From the sources of completed `options`, or sampled from the float model, started from the built-in prompts.
CalibrationSet calibration_set(Device& device, const Checkpoint& source, const QuantizeOptions& options,
                               const OnProgress& progress);

/// .txt: one text. .jsonl: a line is {"text": ...} or {"messages": [...]}, the latter rendered by the model's template.
/// Each source's texts are encoded, joined in file order and cut into as many sequences as its weight gives it; each
/// begins with the tokenizer's BOS where it has one. Throws Error if nothing usable is in a source.
CalibrationSet read_calibration(const QuantizeOptions& options, const TextSide& text);
CalibrationSet self_calibration(Device& device, const Checkpoint& source, const TextSide& text,
                                const QuantizeOptions& options, const OnProgress& progress);

/// `total` split in proportion to the weights by largest remainder; the first of equal remainders gets more.
std::vector<int> split_by_weight(std::span<const CalibrationSource> sources, int total);

nlohmann::ordered_json to_json(const CalibrationReport& r);
CalibrationReport calibration_report(const nlohmann::json& j);  // of to_json

}  // namespace awq
