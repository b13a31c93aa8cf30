#include <nlohmann/json.hpp>

#include "cli.h"

namespace awq::cli {
namespace {

struct QuantizeFlags {
  std::string model, out;
  QuantizeOptions quantize;
  bool json = false;
};

std::string default_output(const std::string& model) {
  std::filesystem::path p(model);
  if (p.filename().empty()) p = p.parent_path();
  return (p.extension() == ".gguf" ? p.stem() : p.filename()).string() + "-awq";
}

double mean(const QuantizeReport& r, double LayerReport::*field) {
  double sum = 0;
  for (const LayerReport& l : r.layers) sum += l.*field;
  return r.layers.empty() ? 0 : sum / double(r.layers.size());
}

nlohmann::ordered_json stages(const QuantizeReport& r) {
  nlohmann::ordered_json j;
  for (const StageReport& s : r.stages) {
    nlohmann::ordered_json& stage = j[s.name] = {{"seconds", s.seconds}};
    if (s.operations > 0) stage["gflops"] = s.operations / s.seconds / 1e9;
    if (s.bytes) stage["bytes"] = s.bytes;
  }
  return j;
}

void print_json(const QuantizeReport& r, const QuantizeFlags& o) {
  fmt::print("{}\n", nlohmann::ordered_json{{"output", o.out},
                                            {"method", o.quantize.method},
                                            {"group_size", r.group_size},
                                            {"head_bits", o.quantize.quantize_head},
                                            {"bytes_in", r.bytes_in},
                                            {"bytes_out", r.bytes_out},
                                            {"seconds", r.seconds},
                                            {"stages", stages(r)},
                                            {"blocks", r.blocks},
                                            {"resumed_blocks", r.resumed_blocks},
                                            {"planned_memory", r.planned_memory},
                                            {"peak_memory", r.peak_memory},
                                            {"calibration", r.calibration.source},
                                            {"mean_relative_error", mean(r, &LayerReport::error)},
                                            {"mean_relative_error_of_rounding", mean(r, &LayerReport::rounding_error)},
                                            {"left_out", r.left_out},
                                            {"warnings", r.warnings},
                                            {"worst_fold_error", r.worst_fold_error}}
                         .dump(1));
}

void print_text(const QuantizeReport& r, const QuantizeFlags& o) {
  fmt::print("{}: {} -> {}, 4 bits in groups of {}{}, {}\n", o.out, human_bytes(r.bytes_in), human_bytes(r.bytes_out),
             r.group_size,
             o.quantize.quantize_head ? fmt::format(", the head in {} bits", o.quantize.quantize_head) : "",
             minutes(r.seconds));
  if (!r.group_size_reason.empty()) fmt::print("  groups of {} because {}\n", r.group_size, r.group_size_reason);
  if (!r.calibration.source.empty())
    fmt::print(
        "  calibrated on {} x {} tokens {}{}\n", r.calibration.sequences, r.calibration.sequence_tokens,
        r.calibration.source == "self" ? "that the model wrote itself" : "of " + r.calibration.source,
        r.calibration.tokens_unused ? fmt::format(" ({} tokens were not needed)", r.calibration.tokens_unused) : "");
  if (r.calibration.source.empty())
    fmt::print("  mean relative error of a layer's weights {:.5f}\n", mean(r, &LayerReport::error));
  else
    fmt::print("  mean relative output error of a layer {:.5f}; plain rounding {:.5f}\n", mean(r, &LayerReport::error),
               mean(r, &LayerReport::rounding_error));
  fmt::print("  at most {} in memory{}\n", human_bytes(uint64_t(r.peak_memory)),
             r.resumed_blocks ? fmt::format("; {} of {} blocks were done before", r.resumed_blocks, r.blocks) : "");
  if (!r.left_out.empty()) fmt::print("  not copied: {}\n", fmt::join(r.left_out, ", "));
  fmt::print("  every layer: {}/awq-report.json\n", o.out);
}

void run(QuantizeFlags& o) {
  return_freed_memory();
  if (o.out.empty()) o.out = default_output(o.model);
  QuantizeReport report;
  {
    ProgressLine line;
    report = quantize(o.model, o.out, o.quantize, std::ref(line));
  }
  for (const std::string& w : report.warnings) fmt::print(stderr, "warning: {}\n", w);
  if (o.json)
    print_json(report, o);
  else
    print_text(report, o);
}

}  // namespace

void add_quantize_options(CLI::App& app, QuantizeOptions& o) {
  std::string names;
  for (const MethodInfo& m : quantize_methods())
    names += fmt::format("{}{}: {}", names.empty() ? "" : "; ", m.name, m.summary);
  app.add_option("--method", o.method, names)->capture_default_str();
  app.add_option("--group-size", o.group_size,
                 "Weights that share a scale; default: 128, or 64 or 32 where a width needs it");
  app.add_option(
         "--quantize-head", o.quantize_head,
         "The head (lm_head) too, rounded to 4 or 8 bits: less to read for a token. Default: it stays in 16, for "
         "transformers ignores such a head without a word, and AutoAWQ and vLLM do not load it")
      ->type_name("BITS");
  app.add_option("--calib", o.calibration,
                 "Calibration text, .txt or .jsonl (\"text\" or \"messages\"); default: the model writes its own");
  app.add_option("--samples", o.samples, "Calibration sequences; default: 16");
  app.add_option("--tokens", o.sample_tokens, "Tokens a sequence; default: 512");
  app.add_option("--temperature", o.temperature, "Of the calibration text that the model writes")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 10.0));
  app.add_option("--seed", o.seed, "Of that text; the same seed gives the same bytes")->capture_default_str();
  app.add_option_function<std::string>(
         "--max-ram", [&o](const std::string& text) { o.max_ram = bytes_of(text); },
         "Memory that the process may have, as 2.5G or 800M; default: what the machine has free")
      ->type_name("BYTES");
  app.add_option("--scratch", o.scratch,
                 "Folder for activations, 8 bytes a token and channel; default: beside the output");
  add_device_options(app, o.device);
}

void add_quantize(CLI::App& app) {
  auto o = std::make_shared<QuantizeFlags>();
  CLI::App* c = app.add_subcommand("quantize", "Make a 4-bit AutoAWQ folder from a float model");
  c->add_option("MODEL", o->model, "Float model: a folder with safetensors, or a .gguf file")->required();
  c->add_option("-o,--output", o->out, "New folder; default: MODEL's name with -awq, in the current folder");
  add_quantize_options(*c, o->quantize);
  c->add_flag("--resume", o->quantize.resume, "Go on with the job that was interrupted, in OUTPUT.awq-job");
  c->add_flag("--restart", o->quantize.restart, "Throw that job away and begin anew");
  c->add_option("--log", o->quantize.log, "File to append a log to, JSON lines; default: in OUTPUT.awq-job");
  c->add_flag("--json", o->json, "Print the result as JSON");
  c->footer(
      "Example:\n  awq quantize Llama-3.2-1B-Instruct -o llama-awq --calib chats.jsonl\n"
      "A job that was interrupted goes on with the same command and --resume.");
  c->callback([o] { run(*o); });
}

}  // namespace awq::cli
