#pragma once
// Flags and output that verbs with calibration share.
#include <nlohmann/json.hpp>

#include "cli.h"

namespace awq::cli {

/// FILE or FILE=WEIGHT; a file that is named with a "=" is a file. Throws CLI::ValidationError in the name of `flag`.
CalibrationSource parse_source(const std::string& text, const std::string& flag);
void add_calibration_sources(CLI::App& app, QuantizeOptions& o);  // --calib
/// --mask-prompts, --samples, --tokens, --temperature, --seed
void add_calibration_options(CLI::App& app, QuantizeOptions& o);
/// "16 x 512 tokens of a.txt, b.jsonl (1,234 tokens were not needed)", a line a source where there are several.
std::string calibration_text(const CalibrationReport& r);
nlohmann::ordered_json calibration_json(const CalibrationReport& r);

}  // namespace awq::cli
