// `awq eval`: one model. `awq compare`: several against their original, in one table.
#include <fstream>
#include <nlohmann/json.hpp>

#include "cli.h"
#include "task_flags.h"

namespace awq::cli {
namespace {

constexpr const char* kTextHelp = "Text to predict: any text file, or .jsonl (\"text\" or \"messages\"), joined";

struct EvalFlags {
  std::string model, text, ids, dump_logits;
  std::vector<std::filesystem::path> models;
  std::string markdown, html, scratch = ".";
  bool json = false, rounding = false;
  EvaluateOptions evaluate;
  TaskOptions tasks;
  AnswerOptions answers;
  bool speed = false;
};

nlohmann::ordered_json to_json(const DivergentToken& d) {
  return {{"window", d.window}, {"position", d.position}, {"kl", d.kl},      {"before", d.before},
          {"next", d.next},     {"original", d.original}, {"model", d.model}};
}

nlohmann::ordered_json to_json(const EvaluateReport& r) {
  nlohmann::ordered_json j{{"model", r.model},
                           {"windows", r.windows},
                           {"window", r.window},
                           {"text_tokens", r.text_tokens},
                           {"predictions", r.predictions},
                           {"perplexity", r.perplexity},
                           {"perplexity_standard_error", r.perplexity_error}};
  if (r.kl) {
    j["original_perplexity"] = *r.original_perplexity;
    j["kl"] = r.kl->value;
    j["kl_standard_error"] = r.kl->standard_error;
    j["top1"] = r.top1->value;
    j["top1_standard_error"] = r.top1->standard_error;
    j["reverse_kl"] = r.reverse_kl->value;
    j["reverse_kl_standard_error"] = r.reverse_kl->standard_error;
    j["top5"] = r.top5->value;
    j["top5_standard_error"] = r.top5->standard_error;
    j["kl_median"] = r.kl_median, j["kl_99"] = r.kl_99, j["kl_largest"] = r.kl_largest;
    j["worst"] = nlohmann::ordered_json::array();
    for (const DivergentToken& d : r.worst) j["worst"].push_back(to_json(d));
  }
  j["bytes"] = r.bytes;
  j["bits_per_weight"] = r.bits_per_weight;
  j["window_nll"] = r.window_nll;
  j["seconds"] = r.seconds;
  return j;
}

void print_table(std::span<const EvaluateReport> reports) {
  size_t width = 5;
  for (const auto& r : reports) width = std::max(width, r.model.size());
  fmt::print("{:<{}}  {:>9}  {:>11}  {:>18}  {:>18}  {:>15}\n", "model", width, "size", "bits/weight", "perplexity",
             "KL to original", "top-1 agreement");
  for (const auto& r : reports)
    fmt::print("{:<{}}  {:>9}  {:>11.2f}  {:>18}  {:>18}  {:>15}\n", r.model, width, human_bytes(r.bytes),
               r.bits_per_weight, fmt::format("{:.3f} ± {:.3f}", r.perplexity, r.perplexity_error),
               r.kl ? fmt::format("{:.4f} ± {:.4f}", r.kl->value, r.kl->standard_error) : "-",
               r.top1 ? fmt::format("{:.1f} ± {:.1f} %", 100 * r.top1->value, 100 * r.top1->standard_error) : "-");
  fmt::print("{} windows of {} tokens; ± is the standard error over windows\n", reports.front().windows,
             reports.front().window);
}

void print_divergence(const EvaluateReport& r) {
  if (!r.kl) return;
  fmt::print(
      "KL from the model to the original {:.4f} ± {:.4f}; the original's token is among the model's five likeliest "
      "in {:.1f} ± {:.1f} %\n",
      r.reverse_kl->value, r.reverse_kl->standard_error, 100 * r.top5->value, 100 * r.top5->standard_error);
  fmt::print("KL of a prediction: half are below {:.4f}, 99 % below {:.3f}, the largest is {:.2f}\n", r.kl_median,
             r.kl_99, r.kl_largest);
  if (r.worst.empty()) return;
  fmt::print("The largest:\n{:>6}  {:<16}  {:<16}  {:<16}  {}\n", "KL", "original", "this model", "the text", "after");
  for (const DivergentToken& d : r.worst)
    fmt::print("{:>6.2f}  {:<16}  {:<16}  {:<16}  {}\n", d.kl, json_text(d.original), json_text(d.model),
               json_text(d.next), json_text(d.before));
}

// NumPy's format, version 1.0: what every reader of float arrays understands.
void write_npy(const std::string& path, std::span<const float> values, size_t rows) {
  std::string header =
      fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows, values.size() / rows);
  header.resize((header.size() + 10 + 64) / 64 * 64 - 10 - 1, ' ');
  header += '\n';
  std::ofstream out(path, std::ios::binary);
  out << "\x93NUMPY\x01" << '\0' << char(header.size() & 255) << char(header.size() >> 8) << header;
  out.write(reinterpret_cast<const char*>(values.data()), std::streamsize(values.size_bytes()));
  out.close();
  if (!out) throw Error(fmt::format("[eval] {}: the logits could not be written. Is the disk full?", path));
}

void dump_logits(const EvalFlags& o) {
  const auto ids = nlohmann::json::parse(read_file(o.ids), nullptr, false);
  if (!ids.is_array())
    throw Error(fmt::format("[eval] {}: expected a JSON list of token ids, such as [1, 22, 333]", o.ids));
  const auto tokens = ids.get<std::vector<int32_t>>();
  write_npy(o.dump_logits, logits(o.model, tokens, o.evaluate.device), tokens.size());
}

std::string text_of(EvalFlags& o) {
  if (o.text.ends_with(".jsonl")) o.evaluate.json_lines = o.text;
  return read_file(o.text);
}

std::vector<TaskReport> run_tasks(const std::filesystem::path& model, EvalFlags& o) {
  o.tasks.device = o.evaluate.device;
  ProgressLine line;
  return evaluate_tasks(model, o.tasks, std::ref(line));
}

nlohmann::ordered_json tasks_json(std::span<const TaskReport> reports) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const TaskReport& r : reports) all.push_back(task_json(r));
  return all;
}

void eval_tasks(EvalFlags& o) {
  const auto reports = run_tasks(o.model, o);
  if (o.json)
    fmt::print("{}\n", tasks_json(reports).dump(1));
  else
    print_tasks(reports, true);
}

void run_eval(EvalFlags& o) {
  if (!o.ids.empty()) return dump_logits(o);
  if (!o.tasks.tasks.empty()) return eval_tasks(o);
  EvaluateReport report;
  {
    ProgressLine line;
    report = evaluate(o.model, text_of(o), o.evaluate, std::ref(line));
  }
  if (o.json)
    fmt::print("{}\n", to_json(report).dump(1));
  else
    print_table({&report, 1}), print_divergence(report);
}

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
  if (m.text) j = to_json(*m.text);
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
  if (!texts.empty()) print_table(texts);
  if (!tasks.empty()) print_tasks(tasks, false);
  if (r.models.front().speed) print_speeds(r);
  if (!r.models.front().answers.empty()) print_answers(r);
  if (!r.differences.empty()) print_differences(r);
}

void run_compare(EvalFlags& o) {
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

void add_answer_options(CLI::App& c, EvalFlags& o) {
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

void add_common(CLI::App& c, EvalFlags& o) {
  c.add_option(
       "--protocol", o.evaluate.protocol,
       "hf: windows of 2,048, all predictions count, as in the AWQ paper; llama.cpp: as llama-perplexity, 512, the "
       "second half counts")
      ->capture_default_str();
  c.add_option("--window", o.evaluate.window,
               "Tokens of a window; the text is tokenized once, cut, and its tail dropped; default: the protocol's");
  c.add_option("--windows", o.evaluate.windows, "Only the first N windows; 0: all")
      ->capture_default_str()
      ->check(CLI::Range(0, 1 << 30));
  c.add_flag("--json", o.json, "Print the result as JSON");
  add_device_options(c, o.evaluate.device);
  add_run_options(c, o.evaluate.device, "f32, which the original always has");
}

}  // namespace

void add_eval(CLI::App& app) {
  auto o = std::make_shared<EvalFlags>();
  CLI::App* c = app.add_subcommand("eval", "Perplexity of a model on a text, and its distance to the original");
  add_model(*c, "MODEL", o->model, "Folder or .gguf file, float or 4-bit")->required();
  auto* text = c->add_option("--text", o->text, kTextHelp);
  auto* against =
      c->add_option("--against", o->evaluate.against, "The original model: adds KL divergence and top-1 agreement");
  auto* worst = c->add_option("--worst", o->evaluate.worst,
                              "With --against: as many tokens with the largest KL are shown, in their text")
                    ->check(CLI::Range(0, 10000))
                    ->needs(against);
  auto* save =
      c->add_option("--save-reference", o->evaluate.save_reference,
                    "File for what is needed of this model as an original that does not fit in memory beside others");
  auto* reference = c->add_option("--reference", o->evaluate.reference,
                                  "Such a file of the model of --against, of which then only the head is loaded");
  auto* ids = c->add_option("--ids", o->ids, "Instead of a text: a JSON list of token ids")->excludes(text);
  auto* dump = c->add_option("--dump-logits", o->dump_logits,
                             "With --ids: write their logits here, float32 [tokens][vocab], NumPy format")
                   ->needs(ids);
  ids->needs(dump);
  add_common(*c, *o);
  CLI::Option* task = add_task_options(*c, o->tasks)->excludes(text)->excludes(ids);
  for (CLI::Option* of_text : {against, worst, save, reference}) task->excludes(of_text);
  c->footer("Example:\n  awq eval smollm2-awq --text wiki.txt --against SmolLM2-135M.gguf");
  c->callback([o] {
    if (o->text.empty() && o->ids.empty() && o->tasks.tasks.empty())
      throw CLI::RequiredError("--text, --task or --ids");
    run_eval(*o);
  });
}

void add_compare(CLI::App& app) {
  auto o = std::make_shared<EvalFlags>();
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
  add_common(*c, *o);
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
