#pragma once
// What is written and kept of a quantized model: the report of each layer, in JSON, and its reading.
#include <nlohmann/json.hpp>

#include "api_calibration.h"
#include "quantizer/quantize.h"

namespace awq {

void add_block(const ModelSpec& m, const BlockResult& b, QuantizeReport& report);
/// Groups, layers and the worst fold so far.
nlohmann::ordered_json blocks_json(const QuantizeReport& r);
void read_blocks(const nlohmann::json& j, QuantizeReport& r);  // adds those of blocks_json; doubles are exact

/// Only what is the same for every run with the same input, options and seed: no times, no paths, no thread counts.
nlohmann::ordered_json report_json(const QuantizeReport& r, const QuantizeOptions& o, std::string_view kernels);

}  // namespace awq
