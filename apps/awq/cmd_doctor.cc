#include <nlohmann/json.hpp>

#include "cli.h"

namespace awq::cli {
namespace {

nlohmann::ordered_json json_of(const DoctorReport& r) {
  nlohmann::ordered_json sets = nlohmann::ordered_json::object();
  for (const KernelSetInfo& s : r.sets) sets[s.name] = s.usable;
  return {{"cpu", r.cpu},
          {"threads", r.threads},
          {"kernels", r.kernels},
          {"sets", sets},
          {"gpu",
           {{"built", r.gpu.built},
            {"usable", r.gpu.usable},
            {"name", r.gpu.name},
            {"architecture", r.gpu.architecture},
            {"driver", r.gpu.driver},
            {"targets", r.gpu.targets},
            {"memory", r.gpu.memory},
            {"free", r.gpu.free},
            {"why_not", r.gpu.why_not}}}};
}

std::string sets_text(const DoctorReport& r, bool usable) {
  std::string text;
  for (const KernelSetInfo& s : r.sets)
    if (s.usable == usable) text += (text.empty() ? "" : ", ") + s.name;
  return text.empty() ? "none" : text;
}

void print(const DoctorReport& r) {
  fmt::print("CPU        {}\n", r.cpu);
  fmt::print("threads    up to {}\n", r.threads);
  fmt::print("kernels    {} (--isa: {}; this CPU lacks what these need: {})\n", r.kernels, sets_text(r, true),
             sets_text(r, false));
  const GpuInfo& g = r.gpu;
  fmt::print("GPU        {}\n", g.name.empty() ? "none" : fmt::format("{}, {}", g.name, g.architecture));
  if (g.memory)
    fmt::print("memory     {} of {} free; --gpu-layers: as many blocks as fit\n", human_bytes(uint64_t(g.free)),
               human_bytes(uint64_t(g.memory)));
  if (g.built) fmt::print("CUDA       driver {}; kernels for sm_ {}\n", g.driver, g.targets);
  fmt::print("--device   cpu{}\n", g.usable ? ", cuda" : "; not cuda: " + g.why_not);
}

}  // namespace

void add_doctor(CLI::App& app) {
  auto json = std::make_shared<bool>(false);
  CLI::App* c = app.add_subcommand("doctor", "What models can run on here: CPU, GPU, kernels, and why not");
  c->add_flag("--json", *json, "Print the result as JSON");
  c->footer("Example:\n  awq doctor");
  c->callback([json] {
    const DoctorReport r = doctor();
    if (*json)
      fmt::print("{}\n", json_of(r).dump(1));
    else
      print(r);
  });
}

}  // namespace awq::cli
