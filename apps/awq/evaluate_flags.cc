#include "evaluate_flags.h"

#include <nlohmann/json.hpp>

#include "cli.h"

namespace awq::cli {
namespace {

nlohmann::ordered_json to_json(const DivergentToken& d) {
  return {{"window", d.window}, {"position", d.position}, {"kl", d.kl},      {"before", d.before},
          {"next", d.next},     {"original", d.original}, {"model", d.model}};
}

}  // namespace

nlohmann::ordered_json evaluate_json(const EvaluateReport& r) {
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

void print_evaluations(std::span<const EvaluateReport> reports) {
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

void add_evaluate_options(CLI::App& c, EvaluateOptions& o, bool& json) {
  c.add_option(
       "--protocol", o.protocol,
       "hf: windows of 2,048, all predictions count, as in the AWQ paper; llama.cpp: as llama-perplexity, 512, the "
       "second half counts")
      ->capture_default_str();
  c.add_option("--window", o.window,
               "Tokens of a window; the text is tokenized once, cut, and its tail dropped; default: the protocol's");
  c.add_option("--windows", o.windows, "Only the first N windows; 0: all")
      ->capture_default_str()
      ->check(CLI::Range(0, 1 << 30));
  c.add_flag("--json", json, "Print the result as JSON");
  add_device_options(c, o.device);
  add_run_options(c, o.device, "f32, which the original always has");
}

}  // namespace awq::cli
