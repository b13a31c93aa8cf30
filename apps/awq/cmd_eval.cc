// `awq eval`: one model.
#include <fstream>
#include <nlohmann/json.hpp>

#include "cli.h"
#include "evaluate_flags.h"
#include "task_flags.h"

namespace awq::cli {
namespace {

struct EvalFlags {
  std::string model, text, ids, dump_logits;
  bool json = false;
  EvaluateOptions evaluate;
  TaskOptions tasks;
};

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
    fmt::print("{}\n", evaluate_json(report).dump(1));
  else
    print_evaluations({&report, 1}), print_divergence(report);
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
  add_evaluate_options(*c, o->evaluate, o->json);
  CLI::Option* task = add_task_options(*c, o->tasks)->excludes(text)->excludes(ids);
  for (CLI::Option* of_text : {against, worst, save, reference}) task->excludes(of_text);
  c->footer("Example:\n  awq eval smollm2-awq --text wiki.txt --against SmolLM2-135M.gguf");
  c->callback([o] {
    if (o->text.empty() && o->ids.empty() && o->tasks.tasks.empty())
      throw CLI::RequiredError("--text, --task or --ids");
    run_eval(*o);
  });
}

}  // namespace awq::cli
