#pragma once
#include <CLI/CLI.hpp>
#include <nlohmann/json_fwd.hpp>

#include "awq/awq.h"

namespace awq::cli {

constexpr const char* kTextHelp = "Text to predict: any text file, or .jsonl (\"text\" or \"messages\"), joined";

/// How a text is cut and predicted, the device, and --json.
void add_evaluate_options(CLI::App& app, EvaluateOptions& o, bool& json);
/// A row a model.
void print_evaluations(std::span<const EvaluateReport> reports);
nlohmann::ordered_json evaluate_json(const EvaluateReport& r);

}  // namespace awq::cli
