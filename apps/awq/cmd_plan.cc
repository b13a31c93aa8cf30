#include <nlohmann/json.hpp>

#include "cli.h"

namespace awq::cli {
namespace {

struct PlanFlags {
  std::string model, out;
  QuantizeOptions quantize;
  bool json = false;
};

void print_json(const PlanReport& r) {
  nlohmann::ordered_json memory;
  for (const auto& [stage, bytes] : r.memory)
    if (bytes) memory[stage] = bytes;
  nlohmann::ordered_json j{{"fits", r.misfits.empty()},
                           {"parameters", r.parameters},
                           {"peak_memory", r.peak_memory},
                           {"allowed_memory", r.allowed_memory},
                           {"memory", memory},
                           {"output_bytes", r.output_bytes},
                           {"scratch_bytes", r.scratch_bytes},
                           {"free_output", r.free_output},
                           {"free_scratch", r.free_scratch},
                           {"blocks", r.blocks}};
  if (r.timed)
    j.update({{"block_seconds", r.block_seconds},
              {"text_seconds", r.text_seconds},
              {"weigh_seconds", r.weigh_seconds},
              {"seconds", r.seconds}});
  fmt::print("{}\n", j.dump(1));
}

void print_text(const PlanReport& r) {
  fmt::print("model    {} parameters\n", r.parameters);
  fmt::print("memory   {} at most, of {}\n", human_bytes(uint64_t(r.peak_memory)),
             human_bytes(uint64_t(r.allowed_memory)));
  for (const auto& [stage, bytes] : r.memory)
    if (bytes) fmt::print("  {:8} {}\n", stage, human_bytes(uint64_t(bytes)));
  fmt::print("output   {}, of {} free\n", human_bytes(r.output_bytes), human_bytes(r.free_output));
  fmt::print("scratch  {}, of {} free\n", human_bytes(r.scratch_bytes), human_bytes(r.free_scratch));
  if (!r.timed) return fmt::print("time     not known: there is a config.json, but there are no weights\n");
  std::string more;
  if (r.text_seconds > 0)
    more += fmt::format(", {} for the model to write its calibration text", minutes(r.text_seconds));
  if (r.weigh_seconds > 0) more += fmt::format(", {} to weigh its tokens", minutes(r.weigh_seconds));
  fmt::print("time     {}: {} blocks of {:.1f} s{}\n", minutes(r.seconds), r.blocks, r.block_seconds, more);
}

void run(PlanFlags& o) {
  return_freed_memory();
  if (o.out.empty()) o.out = "out";  // any name on this disk
  PlanReport report;
  {
    ProgressLine line;
    report = plan(o.model, o.out, o.quantize, std::ref(line));
  }
  if (o.json)
    print_json(report);
  else
    print_text(report);
  if (!report.misfits.empty()) throw Error(fmt::format("{}", fmt::join(report.misfits, "\nerror: ")));
}

}  // namespace

void add_plan(CLI::App& app) {
  auto o = std::make_shared<PlanFlags>();
  CLI::App* c = app.add_subcommand("plan", "What quantizing a model will take: memory, disk, time");
  add_model(*c, "MODEL", o->model, "Float model: a folder with safetensors, or a .gguf file")->required();
  c->add_option("-o,--output", o->out, "Where it would be written; default: the current folder");
  add_quantize_options(*c, o->quantize);
  c->add_flag("--json", o->json, "Print the result as JSON");
  c->footer(
      "One block is computed, the rest follows from the file's headers. A folder with nothing but config.json is "
      "planned\n"
      "too, without times. Exit status 1: it does not fit.\n"
      "Example:\n  awq plan Llama-2-7b --max-ram 4G --calib chats.jsonl");
  c->callback([o] { run(*o); });
}

}  // namespace awq::cli
