#pragma once
// What is written and kept of a quantized model: the report of each layer, in JSON, and its reading.
#include <nlohmann/json.hpp>

#include "api_calibration.h"
#include "quantizer/quantize.h"

namespace awq {

void add_block(const ModelSpec& m, const BlockResult& b, QuantizeReport& report);
/// Groups, layers and the worst fold so far.
nlohmann::ordered_json blocks_json(const QuantizeReport& r);
nlohmann::ordered_json stages_json(const std::vector<StageReport>& stages);
/// Adds what blocks_json and, under "stages", stages_json wrote of some blocks; doubles are exact.
void read_blocks(const nlohmann::json& j, QuantizeReport& r);
/// What was found out of the finished model: gate and answers.
nlohmann::ordered_json judged_json(const QuantizeReport& r, const QuantizeOptions& o);
void read_judged(const nlohmann::json& j, QuantizeReport& r);
std::string report_text(const nlohmann::ordered_json& report);  // a file's; bytes that are no UTF-8 become U+FFFD

/// Only what is the same for every run with the same input, options and seed: no times, no paths, no thread counts.
nlohmann::ordered_json report_json(const QuantizeReport& r, const QuantizeOptions& o, const ModelSpec& m,
                                   std::string_view kernels);
/// What is not: of the run whose report is `r`.
nlohmann::ordered_json run_json(const QuantizeReport& r, std::string_view kernels, int threads);

nlohmann::ordered_json to_json(const GateReport& g, const QuantizeOptions& o);
nlohmann::ordered_json to_json(const AnswerReport& a);

}  // namespace awq
