// `awq study`: ways to change a model's matrices against each other, without writing any.
#include "calibration_flags.h"

namespace awq::cli {
namespace {

struct StudyFlags {
  std::string name, model;
  StudyOptions study;
  bool json = false;
};

std::string plus_minus(const Estimate& e, int digits) {
  return fmt::format("{:.{}f} ± {:.{}f}", e.value, digits, e.standard_error, digits);
}

std::string stored(const StudyRow& r) {
  if (!r.bits) return "-";
  return fmt::format("{} x {}", r.bits, r.group_size < 0 ? "row" : std::to_string(r.group_size));
}

void print_table(const StudyReport& r) {
  size_t width = 5;
  for (const StudyRow& row : r.rows) width = std::max(width, row.name.size());
  fmt::print("{:<{}}  {:>8}  {:>17}  {:>17}  {:>16}  {:>15}\n", "", width, "weights", "KL to original", "to the first",
             "perplexity", "top-1 agreement");
  for (size_t i = 0; i < r.rows.size(); ++i) {
    const StudyRow& row = r.rows[i];
    fmt::print("{:<{}}  {:>8}  {:>17}  {:>17}  {:>16}  {:>15}\n", row.name, width, stored(row),
               i ? plus_minus(row.kl, 4) : "-", i > 1 ? plus_minus(row.difference, 4) : "-",
               fmt::format("{:.3f} ± {:.3f}", row.perplexity, row.perplexity_error),
               i ? fmt::format("{:.1f} ± {:.1f} %", 100 * row.top1.value, 100 * row.top1.standard_error) : "-");
  }
  fmt::print("{} windows of {} tokens {}; ± is the standard error over windows; weights: bits x group; {}\n", r.windows,
             r.window, r.text == "self" ? "that the model wrote itself" : "of " + r.text, minutes(r.seconds));
  for (const CalibrationReport& c : r.calibrations) fmt::print("  calibrated on {}\n", calibration_text(c));
}

void print_json(const StudyReport& r, const std::string& name) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const StudyRow& row : r.rows)
    rows.push_back({{"name", row.name},
                    {"bits", row.bits},
                    {"group_size", row.group_size},
                    {"kl", row.kl.value},
                    {"kl_standard_error", row.kl.standard_error},
                    {"kl_difference", row.difference.value},
                    {"kl_difference_standard_error", row.difference.standard_error},
                    {"perplexity", row.perplexity},
                    {"perplexity_standard_error", row.perplexity_error},
                    {"top1", row.top1.value},
                    {"top1_standard_error", row.top1.standard_error},
                    {"calibration", row.calibration}});
  nlohmann::ordered_json calibrations = nlohmann::ordered_json::array();
  for (const CalibrationReport& c : r.calibrations) calibrations.push_back(calibration_json(c));
  fmt::print("{}\n", nlohmann::ordered_json{{"study", name},
                                            {"text", r.text},
                                            {"windows", r.windows},
                                            {"window", r.window},
                                            {"calibrations", calibrations},
                                            {"warnings", r.warnings},
                                            {"seconds", r.seconds},
                                            {"rows", rows}}
                         .dump(1));
}

void run(const StudyFlags& o) {
  StudyReport report;
  {
    ProgressLine line;
    report = study(o.model, o.name, o.study, std::ref(line));
  }
  for (const std::string& w : report.warnings) fmt::print(stderr, "warning: {}\n", w);
  if (o.json)
    print_json(report, o.name);
  else
    print_table(report);
}

}  // namespace

void add_study(CLI::App& app) {
  auto o = std::make_shared<StudyFlags>();
  CLI::App* c = app.add_subcommand("study", "Ablations of AWQ and its rivals, each a table, without writing a model");
  std::string names;
  for (const StudyInfo& s : studies()) names += fmt::format("{}{}: {}", names.empty() ? "" : "; ", s.name, s.summary);
  c->add_option("STUDY", o->name, names)->required();
  add_model(*c, "MODEL", o->model, "Float model: a folder with safetensors, or a .gguf file")->required();
  c->add_option("--bits", o->study.bits, "2, 3, 4 or 8; default: 3 for salient, alpha and clip, else 4");
  c->add_option("--group-size", o->study.group_size,
                "Weights that share a scale, -1: whole rows; default: 128, or 64 or 32 where a width needs it");
  c->add_flag("--symmetric", o->study.symmetric, "Every zero point is the middle of the codes");
  c->add_option("--scales", o->study.scales, "What a group's scale is rounded to: f16 or bf16")->capture_default_str();
  c->add_option(
       "--methods", o->study.methods,
       fmt::format("Of the studies groups, bits (default: rtn,awq), calibration (awq,gptq,awq+) and methods (all): {}",
                   fmt::join(study_methods(), ", ")))
      ->delimiter(',')
      ->allow_extra_args(false);
  c->add_option("--counts", o->study.counts,
                "Of the study calibration: numbers of sequences of each --calib; default: 4,16,64")
      ->delimiter(',')
      ->allow_extra_args(false);
  c->add_option("--text", o->study.text, "Held-out text, .txt or .jsonl; default: what the model writes");
  c->add_option("--windows", o->study.windows, "Windows of it")->capture_default_str()->check(CLI::Range(1, 1 << 20));
  c->add_option("--window", o->study.window, "Tokens of a window")->capture_default_str();
  add_calibration_sources(*c, o->study.quantize);
  add_calibration_options(*c, o->study.quantize);
  c->add_flag("--json", o->json, "Print the result as JSON");
  add_device_options(*c, o->study.quantize.device);
  c->footer(
      "Example:\n  awq study salient SmolLM2-135M.gguf --text wiki.txt\n"
      "  awq study methods SmolLM2-135M.gguf --bits 3 --methods rtn,awq,awq+");
  c->callback([o] { run(*o); });
}

}  // namespace awq::cli
