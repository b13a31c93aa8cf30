// awq::convert and awq::verify.
#include <algorithm>
#include <array>
#include <chrono>
#include <set>

#include "awq/awq.h"
#include "base/check.h"
#include "formats/compare.h"
#include "formats/folder.h"
#include "formats/load.h"
#include "formats/packed_sink.h"
#include "formats/params.h"

namespace awq {
namespace {

namespace fs = std::filesystem;

/// A program that reads the result, as far as awq's own runs of it show: docs/formats.md has versions and sources.
struct Target {
  std::string_view name, format;
  std::vector<int> groups;  // -1: whole rows
};
const std::array<Target, 3> kTargets = {{{"transformers", "autoawq", {32, 64, 128, -1}},
                                         {"vllm", "compressed-tensors", {32, 64, 128, -1}},
                                         {"mlx", "mlx", {32, 64, 128}}}};

const Target& find_target(const std::string& name) {
  std::string names;
  for (const Target& t : kTargets) {
    if (t.name == name) return t;
    names += (names.empty() ? "" : ", ") + std::string(t.name);
  }
  fail("convert", "--target {}: awq has been run with {} only; give a --format to write one that other programs read",
       name, names);
}

bool is_block_matrix(int block, Param p) { return block >= 0 && !is_norm(p.role); }

/// How the matrices of the blocks are stored: one spec for all, with group -1 where rows are groups.
QuantSpec spec_of_blocks(const Checkpoint& model) {
  std::optional<QuantSpec> spec;
  bool rows = true, symmetric = true;
  for (const auto& [block, p] : params_of(model.spec())) {
    if (!is_block_matrix(block, p)) continue;
    const Pieces w = model.pieces(block, p);
    const auto* q = std::get_if<QuantSpec>(&w.type);
    if (!q) continue;
    if (!spec) spec = *q;
    rows = rows && q->group_size == w.shape[1];
    symmetric = symmetric && q->symmetric;
  }
  if (!spec) fail("convert", "{}: no matrix of it is quantized; `awq quantize` does that", model.described_in());
  if (rows) spec->group_size = -1;
  spec->symmetric = symmetric;
  return *spec;
}

void check_target(const Checkpoint& model, const QuantSpec& spec, const Target& t) {
  if (std::ranges::find(t.groups, spec.group_size) == t.groups.end())
    fail("convert", "{}: groups of {} columns, but {} runs {} of them", model.described_in(), spec.group_size, t.name,
         fmt::join(t.groups, ", "));
}

/// Of a matrix split over devices: its rows, or its columns where its input is split (o and down).
void check_split(const Checkpoint& model, int devices) {
  if (devices < 1) fail("convert", "--tp {}: at least 1 device is needed", devices);
  for (const auto& [block, p] : params_of(model.spec())) {
    if (!is_block_matrix(block, p)) continue;
    const Pieces w = model.pieces(block, p);
    const auto* q = std::get_if<QuantSpec>(&w.type);
    const bool columns = p.role == Role::o || p.role == Role::down;
    const int64_t unit = columns ? (q ? q->group_size : 1) : 8, size = w.shape[columns ? 1 : 0];
    if (size % (devices * unit))
      fail("convert", "--tp {}: {} of {} cannot be split into {} parts of whole {}", devices,
           parameter_name(model.spec(), block, p), w.shape.text(), devices, columns ? "groups" : "words of 8 rows");
  }
}

class Converter {
 public:
  Converter(const Checkpoint& source, const Format& format, const ConvertOptions& o, const OnProgress& progress)
      : source_(source), format_(format), allowed_(losses_of(o.allow)), progress_(progress), pool_(o.threads) {}

  ConvertReport run(const fs::path& out, QuantSpec quant) {
    if (format_.holds && format_.holds->offsets) quant.offsets = true;
    const auto sink = format_.create(out, source_.config(), source_.spec(), quant);
    const auto params = params_of(source_.spec());
    for (int done = 0; const auto& [block, p] : params) {
      put(*sink, block, p);
      if (progress_ && !progress_({"convert", ++done, int(params.size())})) throw Cancelled();
    }
    for (const SideFile& f : source_.side_files()) sink->put_side_file(f);
    sink->finish();
    report_.left_out = source_.left_out();
    return std::move(report_);
  }
  ThreadPool& pool() { return pool_; }

 private:
  void put(CheckpointSink& sink, int block, Param p) {
    const bool head = p.role == Role::embed || p.role == Role::head;
    const std::string name = parameter_name(source_.spec(), block, p);
    if (is_norm(p.role))
      sink.put(block, p, source_.weight(block, p));
    else
      put_matrix(sink, block, p, name, head);
    if (has_bias(source_.spec(), block, p)) sink.put_bias(block, p, source_.bias(block, p)), ++report_.floats;
  }

  void put_matrix(CheckpointSink& sink, int block, Param p, const std::string& name, bool head) {
    const Pieces w = source_.pieces(block, p);
    if (!std::holds_alternative<QuantSpec>(w.type)) {
      sink.put(block, p, source_.weight(block, p));
      ++report_.floats;
      return;
    }
    const QMatrix q = whole_codes(w, pool_);
    if (head || !format_.holds) {
      sink.put(block, p, narrowed(dequantize(q)));
      report_.dequantized.push_back(name);
      return;
    }
    sink.put(block, p, fitted(q, *format_.holds, allowed_, name));
    ++report_.matrices;
  }

  const Checkpoint& source_;
  const Format& format_;
  Losses allowed_;
  const OnProgress& progress_;
  ThreadPool pool_;
  ConvertReport report_;
};

void fill(ConvertReport& r, const Difference& d) {
  r.exact = d.exact();
  r.largest_error = d.largest;
  r.mean_error = d.mean();
  r.where = d.where;
}

/// Tensors of the source that no parameter is made of: copies that tied models keep, tables that are computed.
std::vector<std::string> dropped(const Checkpoint& source) {
  std::set<std::string> bases;
  const StoredTensors stored(source.spec());
  for (const StoredTensor& t : stored.all()) {
    bases.insert(t.name);
    bases.insert(t.name.substr(t.name.find('.') + 1));  // in files of the model without its head
  }
  std::vector<std::string> names;
  if (source.format() == "gguf") return names;  // opening it has found a place for each
  for (const TensorInfo& t : source.tensors())
    if (!bases.contains(t.name.substr(0, t.name.rfind('.')))) names.push_back(t.name);
  return names;
}

}  // namespace

ConvertReport convert(const fs::path& from, const fs::path& to, const ConvertOptions& o, const OnProgress& progress) {
  const auto begin = std::chrono::steady_clock::now();
  if (o.format.empty() == o.target.empty()) fail("convert", "give either --format or --target");
  const Target* target = o.target.empty() ? nullptr : &find_target(o.target);
  const Format& format = find_format(target ? target->format : o.format);
  const auto source = Checkpoint::open(from);
  const QuantSpec spec = spec_of_blocks(*source);
  if (target) check_target(*source, spec, *target);
  check_split(*source, o.tensor_parallel);
  Converter converter(*source, format, o, progress);
  ConvertReport r = converter.run(to, spec);
  const auto written = Checkpoint::open(to);
  fill(r, compare(*source, *written, converter.pool()));
  r.from = source->format();
  r.to = format.name;
  r.dropped = dropped(*source);
  for (const TensorInfo& t : written->tensors()) r.bytes += t.bytes;
  r.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return r;
}

ConvertReport verify(const fs::path& model, const fs::path& against, int threads) {
  ThreadPool pool(threads);
  const auto checked = Checkpoint::open(model);
  const auto other = against.empty() ? Checkpoint::open(model) : Checkpoint::open(against);
  ConvertReport r;
  fill(r, compare(*checked, *other, pool));  // reads everything, and every reader checks what it reads
  r.from = other->format();
  r.to = checked->format();
  for (const TensorInfo& t : checked->tensors()) r.bytes += t.bytes;
  return r;
}

}  // namespace awq
