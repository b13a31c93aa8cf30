// `awq bench`: how fast, and as which share of what this machine can do.
#include <nlohmann/json.hpp>

#include "cli.h"

namespace awq::cli {
namespace {

struct BenchFlags {
  std::string model, shape;
  BenchOptions bench;
  bool json = false;
};

template <class T>
nlohmann::ordered_json or_null(const std::optional<T>& v) {
  return v ? nlohmann::ordered_json(*v) : nlohmann::ordered_json(nullptr);
}

nlohmann::ordered_json to_json(const BenchResult& r) {
  nlohmann::ordered_json j{{"kind", r.kind}, {"batch", r.batch}, {"first", r.first}, {"tokens", r.tokens}};
  j["tokens_per_second"] = {{"median", r.tokens_per_second.median},
                            {"lowest", r.tokens_per_second.lowest},
                            {"highest", r.tokens_per_second.highest}};
  if (r.kind == "decode") {
    j["first_window"] = r.first_window;
    j["last_window"] = r.last_window;
  }
  j["bytes_per_token"] = r.bytes_per_token;
  j["gigabytes_per_second"] = r.gigabytes_per_second;
  j["share_of_read"] = r.share_of_read;
  j["gflops"] = r.gflops;
  j["attention_gflops"] = r.attention_gflops;
  j["peak"] = r.peak;
  j["share_of_peak"] = or_null(r.share_of_peak);
  return j;
}

void print_json(const BenchReport& r) {
  nlohmann::ordered_json j{{"model", r.model},
                           {"quantization", r.quantization},
                           {"head", r.head},
                           {"blocks", r.blocks},
                           {"context", r.context},
                           {"weights", r.weights},
                           {"weight_bytes", r.weight_bytes},
                           {"packed_bytes", r.packed_bytes},
                           {"cpu", r.cpu},
                           {"kernels", r.kernels},
                           {"threads", r.threads},
                           {"repeat", r.repeat}};
  j["read"] = {{"median", r.read_median}, {"best", r.read_best}, {"bytes", r.read_bytes}};
  for (const BenchPeak& p : r.peaks) j["peaks"][p.type] = or_null(p.rate);
  j["check"] = {{"hash", r.check.hash},
                {"portable_hash", r.check.portable_hash},
                {"difference", r.check.difference},
                {"bound", r.check.bound},
                {"blocks", r.check.blocks},
                {"tokens", r.check.tokens}};
  for (const BenchResult& b : r.results) j["results"].push_back(to_json(b));
  j["load_seconds"] = r.load_seconds;
  j["seconds"] = r.seconds;
  fmt::print("{}\n", j.dump(1));
}

std::string percent(std::optional<double> share) { return share ? fmt::format("{:.1f} %", 100 * *share) : "-"; }

void print_row(const BenchResult& r) {
  const bool decode = r.kind == "decode";
  const Spread& s = r.tokens_per_second;
  fmt::print("{:<7} {:>5} {:>11} {:>23} {:>7} {:>7} {:>9.2f} {:>6.2f} {:>7} {:>8.1f} {:>6.1f} {:>7} {}\n", r.kind,
             r.batch, fmt::format("{}-{}", r.first, r.first + r.tokens - 1),
             fmt::format("{:.1f} ({:.1f}-{:.1f})", s.median, s.lowest, s.highest),
             decode ? fmt::format("{:.1f}", r.first_window) : "-", decode ? fmt::format("{:.1f}", r.last_window) : "-",
             1e-6 * r.bytes_per_token, r.gigabytes_per_second, percent(r.share_of_read), r.gflops, r.attention_gflops,
             percent(r.share_of_peak), r.peak);
}

void print_text(const BenchReport& r) {
  fmt::print("{}: {:.1f} M weights, {}, {} blocks, head {}; {} read for a token, {} of matrices as packed\n", r.model,
             1e-6 * double(r.weights), r.quantization.empty() ? "float" : r.quantization, r.blocks, r.head,
             human_bytes(uint64_t(r.weight_bytes)), human_bytes(uint64_t(r.packed_bytes)));
  fmt::print("{}, {}, {} thread{}: read {:.1f} GB/s (best {:.1f})", r.cpu, r.kernels, r.threads,
             r.threads == 1 ? "" : "s", r.read_median, r.read_best);
  for (const BenchPeak& p : r.peaks) fmt::print(", {} {}", p.type, p.rate ? fmt::format("{:.0f}", *p.rate) : "-");
  fmt::print(" Gop/s\n");
  fmt::print("logits of {} tokens, {} blocks: {}; portable kernels' {}, difference {:.1e} (rounding: up to {:.1e})\n\n",
             r.check.tokens, r.check.blocks, r.check.hash, r.check.portable_hash, r.check.difference, r.check.bound);
  fmt::print("{:<7} {:>5} {:>11} {:>23} {:>7} {:>7} {:>9} {:>6} {:>7} {:>8} {:>6} {:>7}\n", "", "batch", "positions",
             fmt::format("tokens/s (min-max of {})", r.repeat), "first", "last", "MB/token", "GB/s", "of read",
             "GFLOP/s", "attn", "of peak");
  for (const BenchResult& b : r.results) print_row(b);
}

void run(BenchFlags& o) {
  BenchReport report;
  {
    ProgressLine line;
    report = o.shape.empty() ? bench(o.model, o.bench, std::ref(line)) : bench_shape(o.shape, o.bench, std::ref(line));
  }
  if (o.json)
    print_json(report);
  else
    print_text(report);
}

}  // namespace

void add_bench(CLI::App& app) {
  auto o = std::make_shared<BenchFlags>();
  CLI::App* c =
      app.add_subcommand("bench", "Speed, as shares of the memory and the multipliers measured in the same run");
  auto* model = add_model(*c, "MODEL", o->model, "Folder or .gguf file, float or 4-bit");
  auto* shape = c->add_option("--shape", o->shape,
                              fmt::format("Instead of a model: random weights of a published shape, {}",
                                          fmt::join(bench_shapes(), ", ")))
                    ->excludes(model);
  c->add_option("--prefill", o->bench.prefill, "Tokens of a prompt; several, separated by commas")
      ->delimiter(',')
      ->capture_default_str();
  c->add_option("--decode", o->bench.decode, "Steps to decode")->capture_default_str();
  c->add_option("--context", o->bench.context, "Tokens before the first that is decoded; several as above")
      ->delimiter(',')
      ->capture_default_str();
  c->add_option("--batch", o->bench.batch, "Sequences decoded together; several as above")
      ->delimiter(',')
      ->capture_default_str();
  c->add_option("--repeat", o->bench.repeat, "Runs of each measurement; the median and the extremes are printed")
      ->capture_default_str();
  c->add_option("--weights", o->bench.weights, "With --shape: int4, bf16 or f32 matrices")
      ->needs(shape)
      ->capture_default_str();
  c->add_option("--group-size,--group", o->bench.group_size,
                "With --shape: weights that share a scale; default: 128, or 64 or 32 where a width needs it");
  c->add_option("--quantize-head", o->bench.quantize_head, "With --shape: 4 or 8 bits for the head; default: bf16")
      ->needs(shape);
  c->add_option("--seed", o->bench.seed, "Of random weights, and of the tokens")->capture_default_str();
  c->add_flag("--json", o->json, "Print everything as JSON");
  add_device_options(*c, o->bench.device);
  add_run_options(*c, o->bench.device, "bf16");
  c->footer("Example:\n  awq bench --shape llama-3.2-1b --prefill 512,2048 --batch 1,8");
  c->callback([o] {
    if (o->model.empty() && o->shape.empty()) throw CLI::RequiredError("MODEL or --shape");
    run(*o);
  });
}

}  // namespace awq::cli
