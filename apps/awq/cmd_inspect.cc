#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "cli.h"

namespace awq::cli {
namespace {

using Json = nlohmann::ordered_json;

Json to_json(const MatrixReport& m) {
  return {{"name", m.name},
          {"bits", m.bits},
          {"group_size", m.group_size},
          {"codes", m.codes},
          {"zeros", m.zeros},
          {"low", m.low},
          {"high", m.high},
          {"groups", m.groups},
          {"equal_groups", m.equal_groups},
          {"zero_scales", m.zero_scales},
          {"smallest_scale", m.smallest_scale},
          {"largest_scale", m.largest_scale},
          {"suspicions", m.suspicions}};
}

void print_json(const InspectReport& r, bool codes) {
  Json j{{"format", r.format},
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
  for (const LedgerRow& l : r.ledger)
    j["ledger"].push_back({{"use", l.use}, {"tensors", l.tensors}, {"bytes", l.bytes}, {"weights", l.weights}});
  j["codes"] = Json::array();
  for (const CodesReport& c : r.codes)
    j["codes"].push_back({{"bits", c.bits},
                          {"group_size", c.group_size},
                          {"scales", c.scales},
                          {"zeros", c.zeros},
                          {"matrices", c.matrices},
                          {"weights", c.weights}});
  for (const TensorReport& t : r.tensors) {
    Json& tensor = j["tensors"].emplace_back(
        Json{{"name", t.name}, {"type", t.type}, {"shape", t.shape}, {"bytes", t.bytes}, {"use", t.use}});
    if (!t.reason.empty()) tensor["reason"] = t.reason;
  }
  j["side_files"] = r.side_files;
  if (codes) j["matrices"] = Json::array();
  for (const MatrixReport& m : r.matrices) j["matrices"].push_back(to_json(m));
  fmt::print("{}\n", j.dump(1));
}

std::string zeros_text(const std::string& zeros) {
  return zeros == "any" ? "zero points" : zeros == "middle" ? "the middle for zero point" : "offsets";
}

void print_ledger(const InspectReport& r) {
  fmt::print("\n{:<10} {:>8} {:>12} {:>14}\n", "", "tensors", "bytes", "weights");
  for (const LedgerRow& l : r.ledger) fmt::print("{:<10} {:>8} {:>12} {:>14}\n", l.use, l.tensors, l.bytes, l.weights);
  fmt::print("{:<10} {:>8} {:>12} {:>14}\n\n", "together", r.tensors.size(), r.bytes, r.weights);
  for (const CodesReport& c : r.codes)
    fmt::print("{} matrices: {} bits, groups of {}, scales {}, {}\n", c.matrices, c.bits, c.group_size, c.scales,
               zeros_text(c.zeros));
}

void print_matrix(const MatrixReport& m) {
  fmt::print("{:<44} {:>4} {:>6} {:>7.2f} % {:>7.2f} % {:>9.2g} {:>9.2g} {:>6}\n", m.name, m.bits, m.group_size,
             100 * m.low, 100 * m.high, m.smallest_scale, m.largest_scale, m.equal_groups);
}

/// Shares of codes, and of zero points, of all matrices of so many bits.
void print_histogram(const InspectReport& r, int bits, const char* what, std::vector<int64_t> MatrixReport::*values) {
  std::vector<double> sums(size_t(1) << bits);
  double all = 0;
  for (const MatrixReport& m : r.matrices)
    for (size_t i = 0; m.bits == bits && i < (m.*values).size(); ++i)
      sums[i] += double((m.*values)[i]), all += double((m.*values)[i]);
  if (all == 0) return;
  if (const auto one = std::ranges::find(sums, all); one != sums.end())
    return fmt::print("\n{} of {} bits: all are {}\n", what, bits, one - sums.begin());
  fmt::print("\n{} of {} bits, % of each value\n", what, bits);
  for (size_t i = 0; i < sums.size(); ++i) fmt::print("{:>6.2f}{}", 100 * sums[i] / all, i % 16 == 15 ? "\n" : " ");
  if (sums.size() < 16) fmt::print("\n");
}

void print_codes(const InspectReport& r, bool each) {
  std::set<int> bits;
  for (const MatrixReport& m : r.matrices) bits.insert(m.bits);
  for (int b : bits) {
    print_histogram(r, b, "codes", &MatrixReport::codes);
    print_histogram(r, b, "zero points", &MatrixReport::zeros);
  }
  if (each) {
    fmt::print("\n{:<44} {:>4} {:>6} {:>9} {:>9} {:>9} {:>9} {:>6}\n", "matrix", "bits", "group", "lowest", "highest",
               "scales", "to", "equal");
    for (const MatrixReport& m : r.matrices) print_matrix(m);
  }
  const auto suspicious =
      std::ranges::count_if(r.matrices, [](const MatrixReport& m) { return !m.suspicions.empty(); });
  fmt::print("\n{} of {} quantized matrices are suspicious\n", suspicious, r.matrices.size());
  for (const MatrixReport& m : r.matrices)
    for (const std::string& s : m.suspicions) fmt::print("{}: {}\n", m.name, s);
}

void print_tensors(const InspectReport& r) {
  for (const TensorReport& t : r.tensors)
    fmt::print("{:<60} {:>7} {:>16} {:>12} {}{}\n", t.name, t.type, t.shape, t.bytes, t.use,
               t.reason.empty() ? "" : ": " + t.reason);
}

void print_text(const InspectReport& r, bool tensors, bool codes) {
  fmt::print("{} ({}), {} blocks, width {}, vocabulary {}, context {}\n", r.architecture, r.format, r.blocks, r.dim,
             r.vocab, r.context);
  fmt::print("{:.1f} M weights in {}: {:.2f} bits a weight{}{}, head: {}\n", double(r.weights) / 1e6,
             human_bytes(r.bytes), r.bits_per_weight,
             r.quantization.empty() ? "" : "; matrices of the blocks: ", r.quantization, r.head);
  fmt::print("{} in memory when it runs, without embedding and KV cache\n", human_bytes(r.memory));
  fmt::print("with it: {}\n", r.side_files.empty() ? "nothing" : fmt::format("{}", fmt::join(r.side_files, ", ")));
  print_ledger(r);
  if (tensors)
    print_tensors(r);
  else
    for (const TensorReport& t : r.tensors)
      if (!t.reason.empty()) fmt::print("dropped: {}, {}\n", t.name, t.reason);
  if (codes)
    print_codes(r, tensors);
  else if (!tensors)
    fmt::print("--tensors lists them; --codes reads all codes\n");
}

}  // namespace

void add_inspect(CLI::App& app) {
  struct Options {
    std::string model;
    InspectOptions inspect{};
    bool json = false, tensors = false;
  };
  auto o = std::make_shared<Options>();
  CLI::App* c = app.add_subcommand("inspect", "What a model is made of");
  add_model(*c, "MODEL", o->model, "Folder or .gguf file, float or 4-bit")->required();
  c->add_flag("--tensors", o->tensors, "List every tensor");
  c->add_flag("--codes", o->inspect.codes, "Read every code: histograms, saturation, what is suspicious");
  c->add_option("--threads", o->inspect.threads, "Threads that read codes; default: one per physical core");
  c->add_flag("--json", o->json, "Print everything as JSON");
  c->footer("Example:\n  awq inspect smollm2-awq --codes");
  c->callback([o] {
    InspectReport r;
    {
      ProgressLine line;
      r = inspect(o->model, o->inspect, std::ref(line));
    }
    if (o->json)
      print_json(r, o->inspect.codes);
    else
      print_text(r, o->tensors, o->inspect.codes);
  });
}

}  // namespace awq::cli
