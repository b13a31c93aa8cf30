#include <nlohmann/json.hpp>

#include "cli.h"

namespace awq::cli {
namespace {

void print_json(const ConvertReport& r) {
  const nlohmann::ordered_json j{{"from", r.from},
                                 {"to", r.to},
                                 {"exact", r.exact},
                                 {"largest_error", r.largest_error},
                                 {"mean_error", r.mean_error},
                                 {"where", r.where},
                                 {"matrices", r.matrices},
                                 {"floats", r.floats},
                                 {"dequantized", r.dequantized},
                                 {"dropped", r.dropped},
                                 {"left_out", r.left_out},
                                 {"bytes", r.bytes},
                                 {"seconds", r.seconds}};
  fmt::print("{}\n", j.dump(1));
}

std::string verdict(const ConvertReport& r) {
  if (r.exact) return "exact: every code, zero point and scale was read again and is the same";
  if (r.largest_error == 0) return "the same weights, in other codes";
  return fmt::format("not exact: the largest error is {:.3g} (mean {:.3g}), in {}", r.largest_error, r.mean_error,
                     r.where);
}

void print_list(const char* what, const std::vector<std::string>& names) {
  if (!names.empty()) fmt::print("{}: {}\n", what, fmt::join(names, ", "));
}

void print_text(const ConvertReport& r) {
  fmt::print("{} to {}: {} matrices, {} float tensors, {} in {:.1f} s\n", r.from, r.to, r.matrices, r.floats,
             human_bytes(r.bytes), r.seconds);
  print_list("de-quantized, for the format has them in floats", r.dequantized);
  print_list("dropped, for they are computed or copies", r.dropped);
  print_list("left out", r.left_out);
  fmt::print("{}\n", verdict(r));
}

struct Options {
  std::string model, out, against;
  ConvertOptions convert;
  bool json = false;
};

}  // namespace

void add_convert(CLI::App& app) {
  auto o = std::make_shared<Options>();
  CLI::App* c = app.add_subcommand("convert", "A model in another format, and whether it is the same");
  add_model(*c, "MODEL", o->model, "Quantized model: a folder, or a .gguf file; for GGUF formats a float model too")
      ->required();
  c->add_option("-o,--output", o->out, "New folder")->required();
  auto* format =
      c->add_option("--format", o->convert.format,
                    "autoawq, compressed-tensors, gptq, gptq-v1, mlx, gguf-q4_0, gguf-q4_1, gguf-q8_0; of floats "
                    "gguf-f16, gguf-bf16, and hf");
  c->add_option("--target", o->convert.target,
                "The format for a program, with its limits: transformers, vllm, sglang, tgi, tensorrt-llm, lmdeploy, "
                "llama.cpp, mlx")
      ->excludes(format);
  c->add_option("--allow", o->convert.allow, "Accept a loss: rounded-offsets, borrowed-zeros");
  c->add_option("--tp", o->convert.tensor_parallel,
                "Devices that it will be split over: refused unless each has whole groups, words and heads")
      ->capture_default_str();
  c->add_option("--threads", o->convert.threads, "Threads; default: one per physical core");
  c->add_flag("--json", o->json, "Print the report as JSON");
  c->footer("Example:\n  awq convert smollm2-awq -o smollm2-ct --target vllm");
  c->callback([o] {
    ProgressLine line;
    const ConvertReport r = convert(o->model, o->out, o->convert, std::ref(line));
    o->json ? print_json(r) : print_text(r);
  });
}

void add_verify(CLI::App& app) {
  auto o = std::make_shared<Options>();
  CLI::App* c = app.add_subcommand("verify", "Read every tensor of a model, and compare it with another one");
  add_model(*c, "MODEL", o->model, "Folder or .gguf file")->required();
  c->add_option("--against", o->against, "What it should be the same as");
  c->add_option("--threads", o->convert.threads, "Threads; default: one per physical core");
  c->add_flag("--json", o->json, "Print the report as JSON");
  c->footer("Example:\n  awq verify smollm2-ct --against smollm2-awq");
  c->callback([o] {
    const ConvertReport r = verify(o->model, o->against, o->convert.threads);
    if (o->json)
      print_json(r);
    else if (o->against.empty())
      fmt::print("{}: {} read, all of it sound\n", r.to, human_bytes(r.bytes));
    else
      fmt::print("{} against {}: {}\n", r.to, r.from, verdict(r));
  });
}

}  // namespace awq::cli
