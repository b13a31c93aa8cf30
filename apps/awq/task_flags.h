#pragma once
// Flags and output of tasks, which eval and compare share.
#include <nlohmann/json.hpp>

#include "cli.h"

namespace awq::cli {

/// --task, which is returned, and what goes with it: --limit, --shots, --shots-from, --seed, --save-samples, --resume.
CLI::Option* add_task_options(CLI::App& app, TaskOptions& o);
/// A row a model and task, and with `parts` one a part of it.
void print_tasks(std::span<const TaskReport> reports, bool parts);
nlohmann::ordered_json tasks_json(std::span<const TaskReport> reports);

}  // namespace awq::cli
