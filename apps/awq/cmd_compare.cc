// `awq compare`: versions of a model against their original, in one table.
#include <fstream>
#include <nlohmann/json.hpp>

#include "cli.h"
#include "evaluate_flags.h"
#include "task_flags.h"

namespace awq::cli {
namespace {

struct ComparisonFlags {
  std::string model, text;
  std::vector<std::filesystem::path> models;
  std::string markdown, html, scratch = ".";
  bool json = false, rounding = false, speed = false;
  EvaluateOptions evaluate;
  TaskOptions tasks;
  AnswerOptions answers;
};

nlohmann::ordered_json to_json(const PairedDifference& d) {
  return {{"metric", d.metric}, {"against", d.other}, {"pairs", d.pairs}, {"difference", d.difference},
          {"low", d.low},       {"high", d.high},     {"p", d.p},         {"better", d.better}};
}

nlohmann::ordered_json to_json(const Estimate& e) { return {{"value", e.value}, {"standard_error", e.standard_error}}; }

nlohmann::ordered_json to_json(const LongAnswer& a) {
  nlohmann::ordered_json j{{"prompt", a.prompt},
                           {"kind", a.kind},
                           {"text", a.text},
                           {"tokens", a.tokens},
                           {"ended", a.ended},
                           {"same_tokens", a.same},
                           {"identical", a.identical},
                           {"repetition", a.repetition},
                           {"length_ratio", a.length_ratio}};
  if (a.agrees) j["same_answer"] = *a.agrees;
  return j;
}

nlohmann::ordered_json to_json(const LongAnswers& a) {
  nlohmann::ordered_json j{{"mode", a.mode},
                           {"limit", a.limit},
                           {"temperature", a.temperature},
                           {"same_tokens", to_json(a.same)},
                           {"identical", to_json(a.identical)},
                           {"repetition", to_json(a.repetition)},
                           {"length_ratio", to_json(a.length_ratio)}};
  if (a.agreement) j["same_answer"] = to_json(*a.agreement);
  for (const LongAnswer& each : a.answers) j["answers"].push_back(to_json(each));
  return j;
}

nlohmann::ordered_json to_json(const Spread& s) {
  return {{"median", s.median}, {"lowest", s.lowest}, {"highest", s.highest}};
}

nlohmann::ordered_json to_json(const SpeedReport& s) {
  nlohmann::ordered_json j{{"prefill_tokens", s.prefill_tokens},
                           {"prefill_tokens_per_second", to_json(s.prefill)},
                           {"decode_tokens", s.decode_tokens},
                           {"decode_tokens_per_second", to_json(s.decode)},
                           {"weight_memory", s.weight_memory}};
  j["peak_memory"] = s.peak_memory ? nlohmann::ordered_json(*s.peak_memory) : nullptr;
  return j;
}

nlohmann::ordered_json to_json(const ComparedModel& m, const ComparisonReport& r) {
  nlohmann::ordered_json j{{"model", m.name}, {"bytes", m.bytes}, {"bits_per_weight", m.bits_per_weight}};
  if (m.text) j = evaluate_json(*m.text);
  if (!m.tasks.empty()) j["tasks"] = tasks_json(m.tasks);
  for (const LongAnswers& a : m.answers) j["answers"].push_back(to_json(a));
  if (m.speed) j["speed"] = to_json(*m.speed);
  j["differences"] = nlohmann::ordered_json::array();
  for (const PairedDifference& d : r.differences)
    if (d.model == m.name) j["differences"].push_back(to_json(d));
  return j;
}

void write_file(const std::string& path, const std::string& text) {
  if (path.empty()) return;
  std::ofstream out(path, std::ios::binary);
  out << text;
  out.close();
  if (!out) throw Error(fmt::format("[compare] {}: the file could not be written. Is the disk full?", path));
}

void print_differences(const ComparisonReport& r) {
  size_t model = 5, metric = 6;
  for (const auto& d : r.differences)
    model = std::max(model, d.model.size()), metric = std::max(metric, d.metric.size());
  fmt::print("\n{:<{}}  {:<{}}  {:<{}}  {:>10}  {:>22}  {:>7}\n", "model", model, "against", model, "metric", metric,
             "difference", "95 % of resamples", "p");
  for (const PairedDifference& d : r.differences)
    fmt::print("{:<{}}  {:<{}}  {:<{}}  {:>+10.4f}  {:>22}  {:>7.4f}{}\n", d.model, model, d.other, model, d.metric,
               metric, d.difference, fmt::format("{:+.4f} to {:+.4f}", d.low, d.high), d.p,
               d.p < 0.05 ? (d.better ? "  better" : "  worse") : "");
  fmt::print("Of the same windows or items, by a bootstrap of the pairs\n");
}

size_t name_width(const ComparisonReport& r) {
  size_t width = 5;
  for (const ComparedModel& m : r.models) width = std::max(width, m.name.size());
  return width;
}

void print_answers(const ComparisonReport& r) {
  const size_t width = name_width(r);
  const auto share = [](const Estimate& e) {
    return fmt::format("{:.1f} ± {:.1f} %", 100 * e.value, 100 * e.standard_error);
  };
  fmt::print("\n{:<{}}  {:<7}  {:>13}  {:>14}  {:>14}  {:>14}  {:>12}\n", "model", width, "mode", "same tokens",
             "identical", "same answer", "repetition", "length ratio");
  for (const ComparedModel& m : r.models)
    for (const LongAnswers& a : m.answers)
      fmt::print("{:<{}}  {:<7}  {:>13}  {:>14}  {:>14}  {:>14}  {:>12}\n", m.name, width, a.mode,
                 fmt::format("{:.1f} ± {:.1f}", a.same.value, a.same.standard_error), share(a.identical),
                 a.agreement ? share(*a.agreement) : "-", share(a.repetition),
                 fmt::format("{:.2f} ± {:.2f}", a.length_ratio.value, a.length_ratio.standard_error));
  const LongAnswers& first = r.models.front().answers.front();
  fmt::print("{} prompts, at most {} tokens each; same tokens: before the first that is not the original's\n",
             first.answers.size(), first.limit);
}

void print_speeds(const ComparisonReport& r) {
  const size_t width = name_width(r);
  const auto text = [](const Spread& s) {
    return fmt::format("{:.1f} ({:.1f} to {:.1f})", s.median, s.lowest, s.highest);
  };
  fmt::print("\n{:<{}}  {:>26}  {:>24}  {:>17}  {:>11}\n", "model", width, "prefill tokens/s", "decode tokens/s",
             "weights in memory", "peak memory");
  for (const ComparedModel& m : r.models)
    fmt::print("{:<{}}  {:>26}  {:>24}  {:>17}  {:>11}\n", m.name, width, text(m.speed->prefill), text(m.speed->decode),
               human_bytes(uint64_t(m.speed->weight_memory)),
               m.speed->peak_memory ? human_bytes(uint64_t(*m.speed->peak_memory)) : "-");
  fmt::print("One sequence: a prompt of {} tokens, and {} behind it; median and range of 3\n",
             r.models.front().speed->prefill_tokens, r.models.front().speed->decode_tokens);
}

void print_comparison(const ComparisonReport& r) {
  std::vector<EvaluateReport> texts;
  std::vector<TaskReport> tasks;
  for (const ComparedModel& m : r.models) {
    if (m.text) texts.push_back(*m.text);
    tasks.insert(tasks.end(), m.tasks.begin(), m.tasks.end());
  }
  if (!texts.empty()) print_evaluations(texts);
  if (!tasks.empty()) print_tasks(tasks, false);
  if (r.models.front().speed) print_speeds(r);
  if (!r.models.front().answers.empty()) print_answers(r);
  if (!r.differences.empty()) print_differences(r);
}

void run_compare(ComparisonFlags& o) {
  return_freed_memory();
  ComparisonReport report;
  {
    ProgressLine line;
    report = compare_models(o.model, o.models,
                            {.text = o.text,
                             .evaluate = o.evaluate,
                             .tasks = o.tasks,
                             .answers = o.answers,
                             .speed = o.speed,
                             .rounding = o.rounding,
                             .scratch = o.scratch},
                            std::ref(line));
  }
  write_file(o.markdown, to_markdown(report));
  write_file(o.html, to_html(report));
  if (!o.json) return print_comparison(report);
  nlohmann::ordered_json j = nlohmann::ordered_json::array();
  for (const auto& m : report.models) j.push_back(to_json(m, report));
  fmt::print("{}\n", j.dump(1));
}

/// A number of built-in prompts, or a file.
void set_answers(const std::string& text, AnswerOptions& o) {
  if (text.find_first_not_of("0123456789") != std::string::npos) {
    o.file = text;
    return;
  }
  if (text.empty() || text.size() > 4 || std::stoi(text) < 1)
    throw CLI::ValidationError("--answers",
                               fmt::format("\"{}\": expected a number of prompts, or a file of them", text));
  o.prompts = std::stoi(text);
}

void add_answer_options(CLI::App& c, ComparisonFlags& o) {
  auto* answers = c.add_option_function<std::string>(
      "--answers", [&o](const std::string& text) { set_answers(text, o.answers); },
      "N or FILE: what each model writes behind N built-in prompts (reasoning, code, dialogue), or those of a file "
      "(.txt, "
      "one a line; .jsonl with \"prompt\" or \"messages\"), beside the original's");
  c.add_option("--answer-tokens", o.answers.tokens, "That an answer has at most")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20))
      ->needs(answers);
  c.add_option("--answer-temperature", o.answers.temperature, "Of the answers that are drawn")
      ->capture_default_str()
      ->check(CLI::Range(0.01, 100.0))
      ->needs(answers);
  c.add_option("--answer-seed", o.answers.seed, "Likewise")->capture_default_str()->needs(answers);
}

}  // namespace

void add_compare(CLI::App& app) {
  auto o = std::make_shared<ComparisonFlags>();
  CLI::App* c = app.add_subcommand("compare", "Several versions of a model against the original, in one table");
  add_model(*c, "ORIGINAL", o->model, "The float model")->required();
  c->add_option("MODEL", o->models, "Versions of it");
  c->add_option("--text", o->text, kTextHelp);
  c->add_flag("--rounding", o->rounding, "Make the original rounded to nearest in 4 bits, and compare with it too");
  c->add_option("--scratch", o->scratch, "Folder for the rounded model, which is removed again")->capture_default_str();
  add_answer_options(*c, *o);
  c->add_flag("--speed", o->speed, "Measure tokens per second and memory of each model, loaded by itself");
  c->add_option("--markdown", o->markdown, "Write the tables to this file");
  c->add_option("--html", o->html, "Write a page with the tables and size against KL to this file");
  add_evaluate_options(*c, o->evaluate, o->json);
  add_task_options(*c, o->tasks);
  c->footer(
      "Example:\n  awq compare SmolLM2-135M.gguf smollm2-awq --rounding --text wiki.txt --windows 20 --html "
      "compare.html");
  c->callback([o] {
    if (o->text.empty() && o->tasks.tasks.empty() && !o->answers.wanted() && !o->speed)
      throw CLI::RequiredError("--text, --task, --answers or --speed");
    if (o->models.empty() && !o->rounding) throw CLI::RequiredError("MODEL or --rounding");
    run_compare(*o);
  });
}

}  // namespace awq::cli
