#include <algorithm>
#include <nlohmann/json.hpp>

#include "calibration_flags.h"
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

// "4.5bpw" or "4.5"
double bits_of(std::string text) {
  if (text.ends_with("bpw")) text.resize(text.size() - 3);
  double bits = 0;
  if (!CLI::detail::lexical_cast(text, bits) || !(bits > 0 && bits <= 16))
    throw CLI::ValidationError("--budget", fmt::format("\"{}\" is no number of bits such as 4.5bpw", text));
  return bits;
}

// "0.9" or "90%"
double share_of(std::string text) {
  const bool percent = text.ends_with('%');
  if (percent) text.pop_back();
  double share = 0;
  if (!CLI::detail::lexical_cast(text, share) || !(share >= 0 && share <= (percent ? 100 : 1)))
    throw CLI::ValidationError("--min-top1", fmt::format("\"{}\" is no share; give one such as 0.9 or 90%", text));
  return percent ? share / 100 : share;
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

nlohmann::ordered_json kept_json(const QuantizeReport& r) {
  nlohmann::ordered_json kept = nlohmann::ordered_json::array();
  for (const KeptReport& k : r.kept)
    kept.push_back({{"name", k.name}, {"kl_if_quantized_alone", k.kl}, {"extra_bytes", k.extra_bytes}});
  return kept;
}

bool rejected(const QuantizeReport& r) { return r.gate && !r.gate->missed.empty(); }

nlohmann::ordered_json gate_json(const QuantizeReport& r) {
  if (!r.gate) return nullptr;
  return {{"text", r.gate->text},
          {"windows", r.gate->windows},
          {"window", r.gate->window},
          {"kl", r.gate->kl.value},
          {"kl_standard_error", r.gate->kl.standard_error},
          {"top1", r.gate->top1.value},
          {"top1_standard_error", r.gate->top1.standard_error},
          {"missed", r.gate->missed}};
}

void print_json(const QuantizeReport& r, const QuantizeFlags& o) {
  fmt::print("{}\n", nlohmann::ordered_json{{"output", r.output.string()},
                                            {"rejected", rejected(r)},
                                            {"gate", gate_json(r)},
                                            {"method", r.method},
                                            {"variant", o.quantize.variant},
                                            {"bits", o.quantize.bits},
                                            {"group_size", r.group_size},
                                            {"symmetric", r.symmetric},
                                            {"scales", o.quantize.scales},
                                            {"portable_scales", o.quantize.portable_scales},
                                            {"bits_per_weight", r.bits_per_weight},
                                            {"head_bits", o.quantize.quantize_head},
                                            {"kept", kept_json(r)},
                                            {"bytes_in", r.bytes_in},
                                            {"bytes_out", r.bytes_out},
                                            {"seconds", r.seconds},
                                            {"stages", stages(r)},
                                            {"blocks", r.blocks},
                                            {"resumed_blocks", r.resumed_blocks},
                                            {"planned_memory", r.planned_memory},
                                            {"peak_memory", r.peak_memory},
                                            {"calibration", calibration_json(r.calibration)},
                                            {"search", r.search},
                                            {"mean_relative_error", mean(r, &LayerReport::error)},
                                            {"mean_relative_error_of_rounding", mean(r, &LayerReport::rounding_error)},
                                            {"left_out", r.left_out},
                                            {"warnings", r.warnings},
                                            {"worst_fold_error", r.worst_fold_error}}
                         .dump(1, ' ', false, nlohmann::json::error_handler_t::replace));
}

void print_text(const QuantizeReport& r, const QuantizeFlags& o) {
  fmt::print("{}: {} -> {}, {} bits in {}{}{}, {}\n", r.output.string(), human_bytes(r.bytes_in),
             human_bytes(r.bytes_out), o.quantize.bits,
             r.group_size < 0 ? "whole rows" : fmt::format("groups of {}", r.group_size),
             r.symmetric ? ", symmetric" : "",
             o.quantize.quantize_head ? fmt::format(", the head in {} bits", o.quantize.quantize_head) : "",
             minutes(r.seconds));
  if (!r.group_size_reason.empty()) fmt::print("  groups of {} because {}\n", r.group_size, r.group_size_reason);
  if (!r.calibration.source.empty()) fmt::print("  calibrated on {}\n", calibration_text(r.calibration));
  if (!r.search.empty()) fmt::print("  scales from {}\n", r.search);
  for (const KeptReport& k : r.kept)
    fmt::print("  in 16 bits: {}, {} more; quantized alone it costs a KL of {:.6f}\n", k.name,
               human_bytes(k.extra_bytes), k.kl);
  if (!r.kept.empty()) fmt::print("  {:.3f} bits per weight\n", r.bits_per_weight);
  if (r.calibration.source.empty() || !r.search.empty())
    fmt::print("  mean relative error of a layer's weights {:.5f}\n", mean(r, &LayerReport::error));
  else
    fmt::print("  mean relative output error of a layer {:.5f}; plain rounding {:.5f}\n", mean(r, &LayerReport::error),
               mean(r, &LayerReport::rounding_error));
  if (const auto few = std::ranges::count_if(r.layers, [](const LayerReport& l) { return l.forced > 0; }))
    fmt::print("  {} experts were sent too few tokens and calibrated with others too\n", few);
  fmt::print("  at most {} in memory{}\n", human_bytes(uint64_t(r.peak_memory)),
             r.resumed_blocks ? fmt::format("; {} of {} blocks were done before", r.resumed_blocks, r.blocks) : "");
  if (!r.left_out.empty()) fmt::print("  not copied: {}\n", fmt::join(r.left_out, ", "));
  if (r.gate)
    fmt::print(
        "  KL to the original {:.5f} ± {:.5f}, top-1 agreement {:.2f} ± {:.2f} %, on {} windows of {} tokens {}\n",
        r.gate->kl.value, r.gate->kl.standard_error, 100 * r.gate->top1.value, 100 * r.gate->top1.standard_error,
        r.gate->windows, r.gate->window, r.gate->text == "self" ? "that the model wrote itself" : "of " + r.gate->text);
  fmt::print("  every layer: {}/awq-report.html\n", r.output.string());
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
  if (rejected(report))
    throw Rejected(fmt::format("{}. The result is kept aside in {}", fmt::join(report.gate->missed, "; "),
                               report.output.string()));
}

}  // namespace

void add_quantize_options(CLI::App& app, QuantizeOptions& o) {
  std::string names;
  for (const MethodInfo& m : quantize_methods())
    names += fmt::format("{}{}: {}", names.empty() ? "" : "; ", m.name, m.summary);
  app.add_option("--method", o.method, names + "; default: awq+, or awq with --variant or --load-search");
  app.add_option("--variant", o.variant,
                 "Of awq, to compare with: llm-awq, autoawq or llm-compressor search as those programs do; \"ours\" is "
                 "closer to the original")
      ->capture_default_str();
  app.add_option("--bits", o.bits, "Of a code: 2, 3, 4 or 8 that the format holds; an AutoAWQ folder holds 4")
      ->capture_default_str();
  auto* format =
      app.add_option("--format", o.format, "autoawq (default), compressed-tensors, gptq, mlx, gguf-q4_0 or gguf-q4_1")
          ->type_name("NAME");
  app.add_option("--target", o.target,
                 "The format for a program, with its limits: transformers, vllm, sglang, tgi, tensorrt-llm, lmdeploy, "
                 "llama.cpp, mlx")
      ->type_name("NAME")
      ->excludes(format);
  app.add_option("--tp", o.tensor_parallel,
                 "Devices that it will be split over: refused unless each has whole groups, words and heads")
      ->capture_default_str();
  app.add_option("--group-size", o.group_size,
                 "Weights that share a scale, -1: whole rows; default: 128, or 64 or 32 where a width needs it");
  app.add_flag("--symmetric", o.symmetric, "Every zero point is the middle of the codes");
  app.add_option("--scales", o.scales,
                 "What a group's scale is rounded to and stored in: f16, or bf16 where the format holds it")
      ->capture_default_str();
  app.add_flag("--portable-scales", o.portable_scales,
               "Scales of 11 - bits significant bits, so that other formats hold the same weights to the last bit");
  app.add_option(
         "--quantize-head", o.quantize_head,
         "The head (lm_head) too, rounded to 4 or 8 bits: less to read for a token. Default: it stays in 16, for "
         "transformers ignores such a head without a word, and AutoAWQ and vLLM do not load it")
      ->type_name("BITS");
  add_calibration_sources(app, o);
  add_calibration_options(app, o);
  app.add_flag("!--no-token-weights", o.token_weights,
               "awq+: all calibration tokens count alike, not by what they do to the model's output; less time, memory "
               "and scratch");
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
  CLI::App* c = app.add_subcommand("quantize",
                                   "Make a 4-bit model from a float model, as an AutoAWQ folder or in another format");
  add_model(*c, "MODEL", o->model, "Float model: a folder with safetensors, or a .gguf file")->required();
  c->add_option("-o,--output", o->out, "New folder; default: MODEL's name with -awq, in the current folder");
  add_quantize_options(*c, o->quantize);
  auto* load = c->add_option(
      "--load-search", o->quantize.load_search,
      "Scales and ranges from this file instead of a search: written by --save-search, of this model and any "
      "group size, or a .pt that llm-awq saved");
  c->add_option("--save-search", o->quantize.save_search, "Write what the search found into this new file")
      ->excludes(load);
  c->add_option(
       "--max-kl", o->quantize.max_kl,
       "Gate: the most KL to the original, nats a token, on held-out text. A result that misses a gate is kept "
       "as OUTPUT.rejected, and the exit status is 3")
      ->type_name("KL");
  c->add_option_function<std::string>(
       "--min-top1", [o](const std::string& text) { o->quantize.min_top1 = share_of(text); },
       "Gate: the least share of positions where both predict the same token, such as 0.9 or 90%")
      ->type_name("SHARE");
  c->add_option(
      "--gate-text", o->quantize.gate_text,
      "Held-out text for the gates, any text file or .jsonl: its first 16 windows of 512 tokens; default: what "
      "the model writes with the next seed");
  c->add_option("--answers", o->quantize.answers,
                "Prompts that both models answer in the report; default: 5 where the model writes its own calibration "
                "text, otherwise 0, for the whole float model must fit into memory")
      ->type_name("N")
      ->check(CLI::Range(0, 1 << 20));
  c->add_option(
      "--report", o->quantize.report,
      "Write the report's page with this run's time and memory to this file; the output's own has neither, so "
      "that its bytes repeat");
  auto* keep = c->add_option("--keep", o->quantize.keep,
                             "Leave the N most sensitive layers in 16 bits, each with those that other programs fuse "
                             "with it (q, k, v; gate, up); see awq sensitivity")
                   ->check(CLI::Range(1, 1 << 20));
  c->add_option_function<std::string>(
       "--budget", [o](const std::string& text) { o->quantize.budget = bits_of(text); },
       "Leave as many layers in 16 bits as this mean allows, such as 4.5bpw: bits per weight of the blocks' matrices")
      ->type_name("BITS")
      ->excludes(keep);
  c->add_flag("--resume", o->quantize.resume, "Go on with the job that was interrupted, in OUTPUT.awq-job");
  c->add_flag("--restart", o->quantize.restart, "Throw that job away and begin anew");
  c->add_option("--log", o->quantize.log, "File to append a log to, JSON lines; default: in OUTPUT.awq-job");
  c->add_flag("--json", o->json, "Print the result as JSON");
  c->footer(
      "Example:\n  awq quantize Llama-3.2-1B-Instruct -o llama-awq --calib chats.jsonl\n"
      "A job that was interrupted goes on with the same command and --resume.\n"
      "Exit status: 0 done, 1 failed, 2 wrong usage, 3 a gate was missed, 130 interrupted.");
  c->callback([o] { run(*o); });
}

}  // namespace awq::cli
