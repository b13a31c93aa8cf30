#include "task_flags.h"

namespace awq::cli {
namespace {

TaskFile parse_task(const std::string& text) {
  const size_t at = text.find('=');
  const std::string name = text.substr(0, at);
  std::string names;
  for (const TaskInfo& t : tasks()) {
    if (t.name == name && at != std::string::npos && at + 1 < text.size()) return {name, text.substr(at + 1)};
    names += (names.empty() ? "" : ", ") + std::string(t.name);
  }
  throw CLI::ValidationError("--task", fmt::format("\"{}\": expected NAME=FILE, where NAME is one of {}", text, names));
}

std::string task_help() {
  std::string text = "NAME=FILE, may be repeated: a benchmark as lm-eval defines it, on its authors' file:";
  for (const TaskInfo& t : tasks()) text += fmt::format("\n{} ({})", t.name, t.summary);
  return text;
}

std::string metric_text(const TaskMetric& m) {
  const double scale = m.name == "perplexity" ? 1 : 100;
  return fmt::format("{:.2f} ± {:.2f}{}", scale * m.value.value, scale * m.value.standard_error,
                     scale == 1 ? "" : " %");
}

std::string notes(const TaskReport& r) {
  std::string text;
  if (r.resumed) text += fmt::format("  {} items scored before", r.resumed);
  if (r.truncated) text += fmt::format("  {} items cut to the context", r.truncated);
  return text;
}

nlohmann::ordered_json metrics_json(const std::vector<TaskMetric>& metrics) {
  nlohmann::ordered_json j = nlohmann::ordered_json::object();
  for (const TaskMetric& m : metrics)
    j[m.name] = {{"value", m.value.value}, {"standard_error", m.value.standard_error}};
  return j;
}

void add_parts(nlohmann::ordered_json& j, const char* key, const std::vector<TaskPart>& parts) {
  for (const TaskPart& p : parts)
    j[key].push_back({{"name", p.name}, {"items", p.items}, {"metrics", metrics_json(p.metrics)}});
}

nlohmann::ordered_json task_json(const TaskReport& r) {
  nlohmann::ordered_json j = {
      {"model", r.model}, {"task", r.task},       {"file", r.file},     {"items", r.items},
      {"shots", r.shots}, {"resumed", r.resumed}, {"cut", r.truncated}, {"metrics", metrics_json(r.metrics)}};
  add_parts(j, "groups", r.groups);
  add_parts(j, "parts", r.parts);
  j["seconds"] = r.seconds;
  return j;
}

}  // namespace

CLI::Option* add_task_options(CLI::App& c, TaskOptions& o) {
  CLI::Option* task = c.add_option_function<std::vector<std::string>>(
                           "--task",
                           [&o](const std::vector<std::string>& texts) {
                             for (const auto& t : texts) o.tasks.push_back(parse_task(t));
                           },
                           task_help())
                          ->allow_extra_args(false);
  c.add_option("--limit", o.limit, "Of each task only the first N items; 0: all")
      ->capture_default_str()
      ->check(CLI::Range(0, 1 << 30))
      ->needs(task);
  c.add_option("--shots", o.shots, "Examples before each item; default: none, of gsm8k 5")
      ->check(CLI::Range(0, 1000))
      ->needs(task);
  c.add_option("--shots-from", o.shots_from, "File that examples are drawn from; default: the task's own items")
      ->needs(task);
  c.add_option("--seed", o.seed, "Of the examples; lm-eval draws the same ones")->capture_default_str()->needs(task);
  auto* samples = c.add_option("--save-samples", o.samples,
                               "File for each item's prompt and scores, JSON lines, written as they are known")
                      ->needs(task);
  c.add_flag("--resume", o.resume, "Go on with the file of --save-samples, where an earlier run ended")->needs(samples);
  return task;
}

void print_tasks(std::span<const TaskReport> reports, bool parts) {
  size_t model = 5, task = 4;
  for (const TaskReport& r : reports) {
    model = std::max(model, r.model.size()), task = std::max(task, r.task.size());
    if (parts)
      for (const TaskPart& p : r.parts) task = std::max(task, 2 + p.name.size());
  }
  fmt::print("{:<{}}  {:<{}}  {:>6}  {:>5}  {:<10}  {:>16}\n", "model", model, "task", task, "items", "shots", "metric",
             "value");
  const auto row = [&](const TaskReport& r, const std::string& name, int items, const TaskMetric& m,
                       const std::string& notes) {
    fmt::print("{:<{}}  {:<{}}  {:>6}  {:>5}  {:<10}  {:>16}{}\n", r.model, model, name, task, items, r.shots, m.name,
               metric_text(m), notes);
  };
  for (const TaskReport& r : reports) {
    for (const TaskMetric& m : r.metrics) row(r, r.task, r.items, m, &m == &r.metrics.front() ? notes(r) : "");
    if (!parts) continue;
    for (const auto* list : {&r.groups, &r.parts})
      for (const TaskPart& p : *list)
        for (const TaskMetric& m : p.metrics) row(r, "  " + p.name, p.items, m, "");
  }
  fmt::print("± is the standard error over items\n");
}

nlohmann::ordered_json tasks_json(std::span<const TaskReport> reports) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const TaskReport& r : reports) all.push_back(task_json(r));
  return all;
}

}  // namespace awq::cli
