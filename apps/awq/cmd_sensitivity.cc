// `awq sensitivity`: what each layer costs when it alone is quantized.
#include <algorithm>

#include "calibration_flags.h"

namespace awq::cli {
namespace {

struct SensitivityFlags {
  std::string model;
  SensitivityOptions sensitivity;
  int limit = 0;
  bool json = false;
};

double kl_per_megabyte(const LayerSensitivity& l) { return l.kl / (double(l.saved_bytes) / 1e6); }

// The most expensive of what is saved first: what to keep.
std::vector<LayerSensitivity> sorted(const SensitivityReport& r, int limit) {
  std::vector<LayerSensitivity> layers = r.layers;
  std::ranges::stable_sort(layers, std::greater(), kl_per_megabyte);
  if (limit && size_t(limit) < layers.size()) layers.resize(size_t(limit));
  return layers;
}

void print_json(const SensitivityReport& r, int limit) {
  nlohmann::ordered_json layers = nlohmann::ordered_json::array();
  for (const LayerSensitivity& l : sorted(r, limit))
    layers.push_back({{"name", l.name},
                      {"kl", l.kl},
                      {"kl_standard_error", l.standard_error},
                      {"saved_bytes", l.saved_bytes},
                      {"kl_per_megabyte_saved", kl_per_megabyte(l)}});
  fmt::print("{}\n", nlohmann::ordered_json{{"text", r.text},
                                            {"windows", r.windows},
                                            {"window", r.window},
                                            {"group_size", r.group_size},
                                            {"measured_layers", r.layers.size()},
                                            {"calibration", calibration_json(r.calibration)},
                                            {"seconds", r.seconds},
                                            {"layers", layers}}
                         .dump(1));
}

void print_table(const SensitivityReport& r, int limit) {
  const std::vector<LayerSensitivity> layers = sorted(r, limit);
  size_t width = 5;
  for (const LayerSensitivity& l : layers) width = std::max(width, l.name.size());
  fmt::print("{:<{}}  {:>23}  {:>9}  {:>15}\n", "layer", width, "KL if quantized alone", "saved", "KL per MB saved");
  for (const LayerSensitivity& l : layers)
    fmt::print("{:<{}}  {:>23}  {:>9}  {:>15.3g}\n", l.name, width,
               fmt::format("{:.6f} ± {:.6f}", l.kl, l.standard_error), human_bytes(l.saved_bytes), kl_per_megabyte(l));
  fmt::print("{} of {} layers; {} windows of {} tokens of {}; ± is the standard error over windows; {}\n",
             layers.size(), r.layers.size(), r.windows, r.window,
             r.text == "calibration" ? "the calibration text" : r.text, minutes(r.seconds));
}

void run(const SensitivityFlags& o) {
  SensitivityReport report;
  {
    ProgressLine line;
    report = sensitivity(o.model, o.sensitivity, std::ref(line));
  }
  for (const std::string& w : report.warnings) fmt::print(stderr, "warning: {}\n", w);
  if (o.json)
    print_json(report, o.limit);
  else
    print_table(report, o.limit);
}

}  // namespace

void add_sensitivity(CLI::App& app) {
  auto o = std::make_shared<SensitivityFlags>();
  CLI::App* c =
      app.add_subcommand("sensitivity", "What each layer costs when it alone is quantized, most per byte first");
  add_model(*c, "MODEL", o->model, "Float model: a folder with safetensors, or a .gguf file")->required();
  c->add_option("--text", o->sensitivity.text, "Text that KL is measured on; default: the calibration text");
  c->add_option("--windows", o->sensitivity.windows, "Windows of it")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  c->add_option("--window", o->sensitivity.window, "Tokens of a window")->capture_default_str();
  c->add_option("--limit", o->limit, "Print the first N layers only; default: all")->check(CLI::Range(1, 1 << 20));
  c->add_option("--method", o->sensitivity.quantize.method, "As for quantize");
  c->add_option("--group-size", o->sensitivity.quantize.group_size, "As for quantize");
  add_calibration_sources(*c, o->sensitivity.quantize);
  add_calibration_options(*c, o->sensitivity.quantize);
  c->add_flag("--json", o->json, "Print the result as JSON");
  add_device_options(*c, o->sensitivity.quantize.device);
  c->footer("Example:\n  awq sensitivity SmolLM2-135M.gguf --text held-out.txt --limit 20");
  c->callback([o] { run(*o); });
}

}  // namespace awq::cli
