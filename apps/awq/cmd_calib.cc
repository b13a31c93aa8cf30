// `awq calib compare`: which calibration text serves a model best.
#include "calibration_flags.h"

namespace awq::cli {
namespace {

struct CompareFlags {
  std::string model;
  std::vector<std::string> mixes;
  CalibrationCompareOptions compare;
  bool json = false;
};

// FILE[=WEIGHT],FILE[=WEIGHT]..., or self
std::vector<CalibrationSource> parse_mix(const std::string& text) {
  std::vector<CalibrationSource> mix;
  if (text == "self") return mix;
  for (const std::string& part : CLI::detail::split(text, ',')) mix.push_back(parse_source(part, "MIX"));
  return mix;
}

void print_json(const std::vector<CalibrationMixReport>& reports) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const CalibrationMixReport& r : reports) {
    const EvaluateReport& e = r.evaluation;
    all.push_back({{"mix", r.mix},
                   {"kl", e.kl->value},
                   {"kl_standard_error", e.kl->standard_error},
                   {"kl_minus_first", r.difference.value},
                   {"kl_minus_first_standard_error", r.difference.standard_error},
                   {"top1", e.top1->value},
                   {"top1_standard_error", e.top1->standard_error},
                   {"perplexity", e.perplexity},
                   {"windows", e.windows},
                   {"window", e.window},
                   {"window_kl", e.window_kl},
                   {"calibration", calibration_json(r.calibration)}});
  }
  fmt::print("{}\n", all.dump(1));
}

void print_table(const std::vector<CalibrationMixReport>& reports, const CompareFlags& o) {
  size_t width = 3;
  for (const auto& r : reports) width = std::max(width, r.mix.size());
  fmt::print("{:<{}}  {:>17}  {:>18}  {:>15}  {:>10}\n", "mix", width, "KL to original", "KL minus the first",
             "top-1 agreement", "perplexity");
  for (const auto& r : reports) {
    const EvaluateReport& e = r.evaluation;
    fmt::print(
        "{:<{}}  {:>17}  {:>18}  {:>15}  {:>10.3f}\n", r.mix, width,
        fmt::format("{:.4f} ± {:.4f}", e.kl->value, e.kl->standard_error),
        &r == &reports.front() ? "-" : fmt::format("{:+.4f} ± {:.4f}", r.difference.value, r.difference.standard_error),
        fmt::format("{:.1f} ± {:.1f} %", 100 * e.top1->value, 100 * e.top1->standard_error), e.perplexity);
  }
  fmt::print("{} windows of {} tokens {}; ± is the standard error over windows, of differences window by window\n",
             reports.front().evaluation.windows, reports.front().evaluation.window,
             o.compare.text.empty() ? "that the model wrote itself" : "of " + o.compare.text.filename().string());
}

void run(CompareFlags& o) {
  for (const std::string& m : o.mixes) o.compare.mixes.push_back(parse_mix(m));
  std::vector<CalibrationMixReport> reports;
  {
    ProgressLine line;
    reports = compare_calibrations(o.model, o.compare, std::ref(line));
  }
  if (o.json)
    print_json(reports);
  else
    print_table(reports, o);
}

}  // namespace

void add_calib(CLI::App& app) {
  auto o = std::make_shared<CompareFlags>();
  CLI::App* calib = app.add_subcommand("calib", "Calibration text: compare mixes of it");
  calib->require_subcommand(1);
  CLI::App* c = calib->add_subcommand(
      "compare", "Quantize a model with each mix of calibration text, and measure all on the same held-out text");
  add_model(*c, "MODEL", o->model, "Float model: a folder with safetensors, or a .gguf file")->required();
  c->add_option("MIX", o->mixes, "FILE[=WEIGHT],FILE[=WEIGHT]... or self, the model's own text; two or more")
      ->required();
  c->add_option("--eval", o->compare.text,
                "Held-out text, any text file or .jsonl; default: what the model writes with the next seed");
  c->add_option("--window", o->compare.window, "Tokens of a held-out window")->capture_default_str();
  c->add_option("--windows", o->compare.windows, "Held-out windows; default: all of the file, or 16")
      ->check(CLI::Range(1, 1 << 30));
  c->add_option("--method", o->compare.quantize.method, "As for quantize");
  c->add_option("--group-size", o->compare.quantize.group_size, "As for quantize");
  add_calibration_options(*c, o->compare.quantize);
  c->add_option("--scratch", o->compare.scratch, "Folder for the quantized models until the end; default: the current");
  c->add_flag("--json", o->json, "Print the result as JSON");
  add_device_options(*c, o->compare.quantize.device);
  c->footer(
      "Example:\n  awq calib compare Qwen2.5-0.5B-Instruct self chats.jsonl chats.jsonl=3,code.txt --eval "
      "held-out.txt");
  c->callback([o] { run(*o); });
}

}  // namespace awq::cli
