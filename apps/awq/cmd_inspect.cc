#include <nlohmann/json.hpp>

#include "cli.h"

namespace awq::cli {
namespace {

void print_json(const InspectReport& r) {
  nlohmann::ordered_json j{{"format", r.format},
                           {"architecture", r.architecture},
                           {"blocks", r.blocks},
                           {"dim", r.dim},
                           {"vocab", r.vocab},
                           {"context", r.context},
                           {"quantization", r.quantization},
                           {"head", r.head},
                           {"bytes", r.bytes},
                           {"weights", r.weights},
                           {"bits_per_weight", r.bits_per_weight},
                           {"memory", r.memory}};
  for (const TensorReport& t : r.tensors)
    j["tensors"].push_back({{"name", t.name}, {"type", t.type}, {"shape", t.shape}, {"bytes", t.bytes}});
  j["side_files"] = r.side_files;
  fmt::print("{}\n", j.dump(1));
}

void print_text(const InspectReport& r, bool tensors) {
  fmt::print("{} ({}), {} blocks, width {}, vocabulary {}, context {}\n", r.architecture, r.format, r.blocks, r.dim,
             r.vocab, r.context);
  fmt::print("{:.1f} M weights in {}: {:.2f} bits a weight{}{}, head: {}\n", double(r.weights) / 1e6,
             human_bytes(r.bytes), r.bits_per_weight,
             r.quantization.empty() ? "" : "; matrices of the blocks: ", r.quantization, r.head);
  fmt::print("{} in memory when it runs, without embedding and KV cache\n", human_bytes(r.memory));
  fmt::print("with it: {}\n", r.side_files.empty() ? "nothing" : fmt::format("{}", fmt::join(r.side_files, ", ")));
  if (!tensors) return fmt::print("{} tensors (--tensors lists them)\n", r.tensors.size());
  for (const TensorReport& t : r.tensors) fmt::print("{:<60} {:>5} {:>16} {:>12}\n", t.name, t.type, t.shape, t.bytes);
}

}  // namespace

void add_inspect(CLI::App& app) {
  struct Options {
    std::string model;
    bool json = false, tensors = false;
  };
  auto o = std::make_shared<Options>();
  CLI::App* c = app.add_subcommand("inspect", "What a model is made of");
  add_model(*c, "MODEL", o->model, "Folder or .gguf file, float or 4-bit")->required();
  c->add_flag("--tensors", o->tensors, "List every tensor");
  c->add_flag("--json", o->json, "Print everything as JSON");
  c->footer("Example:\n  awq inspect smollm2-awq --tensors");
  c->callback([o] {
    const InspectReport r = inspect(o->model);
    if (o->json)
      print_json(r);
    else
      print_text(r, o->tensors);
  });
}

}  // namespace awq::cli
