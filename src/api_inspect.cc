// awq::inspect.
#include <algorithm>
#include <array>

#include "api_evaluate.h"
#include "engine/runtime.h"
#include "formats/load.h"
#include "formats/params.h"
#include "quant/survey.h"

namespace awq {
namespace {

struct Codes {
  int block;
  Param param;
  Pieces pieces;
  const QuantSpec& spec() const { return std::get<QuantSpec>(pieces.type); }
};

/// Every quantized matrix.
std::vector<Codes> codes_of(const Checkpoint& model) {
  std::vector<Codes> all;
  for (const auto& [block, p] : params_of(model.spec()))
    if (use_of(model, block, p) == TensorUse::quantized) all.push_back({block, p, model.pieces(block, p)});
  return all;
}

std::vector<LedgerRow> ledger_of(const Checkpoint& model) {
  std::vector<LedgerRow> rows;
  for (TensorUse use : {TensorUse::quantized, TensorUse::floats, TensorUse::carried, TensorUse::dropped})
    rows.push_back({.use = std::string(name_of(use))});
  for (const TensorInfo& t : model.tensors()) {
    ++rows[size_t(t.use)].tensors;
    rows[size_t(t.use)].bytes += t.bytes;
  }
  for (const auto& [block, p] : params_of(model.spec())) {
    const Shape shape = shape_of(model.spec(), block, p);
    rows[size_t(use_of(model, block, p))].weights += shape.elements();
    if (has_bias(model.spec(), block, p)) rows[size_t(TensorUse::carried)].weights += shape[0];
  }
  rows[size_t(TensorUse::carried)].weights += carried_elements(model);
  return rows;
}

std::vector<CodesReport> kinds_of(const std::vector<Codes>& codes) {
  std::vector<CodesReport> kinds;
  for (const Codes& c : codes) {
    const QuantSpec& q = c.spec();
    CodesReport kind{.bits = q.bits,
                     .group_size = q.group_size,
                     .scales = std::string(name_of(q.scale_dtype)),
                     .zeros = q.offsets     ? "offsets"
                              : q.symmetric ? "middle"
                                            : "any"};
    const auto same = std::ranges::find_if(kinds, [&](const CodesReport& k) {
      return k.bits == kind.bits && k.group_size == kind.group_size && k.scales == kind.scales && k.zeros == kind.zeros;
    });
    CodesReport& to = same == kinds.end() ? kinds.emplace_back(kind) : *same;
    ++to.matrices;
    to.weights += c.pieces.shape.elements();
  }
  return kinds;
}

/// Whatever is wrong with a matrix is a suspicion, so that the others are seen too.
MatrixReport report_of(const std::string& name, const Codes& c, ThreadPool& pool) {
  MatrixReport r{.name = name, .bits = c.spec().bits, .group_size = c.spec().group_size};
  try {
    const CodeSurvey s = survey(whole_codes(c.pieces, pool), pool);
    r.codes = s.codes;
    if (!c.spec().offsets) r.zeros = s.zeros;
    r.low = s.low();
    r.high = s.high();
    r.groups = s.groups;
    r.equal_groups = s.equal_groups;
    r.zero_scales = s.zero_scales;
    r.smallest_scale = s.smallest_scale;
    r.largest_scale = s.largest_scale;
    r.suspicions = suspicions(s);
  } catch (const Error& e) {
    r.suspicions = {e.what()};
  }
  return r;
}

std::vector<MatrixReport> read_codes(const Checkpoint& model, const std::vector<Codes>& codes, int threads,
                                     const OnProgress& progress) {
  ThreadPool pool(threads);
  std::vector<MatrixReport> reports;
  for (const Codes& c : codes) {
    reports.push_back(report_of(parameter_name(model.spec(), c.block, c.param), c, pool));
    if (progress && !progress({"inspect", int(reports.size()), int(codes.size())})) throw Cancelled();
  }
  return reports;
}

}  // namespace

InspectReport inspect(const std::filesystem::path& path, const InspectOptions& options, const OnProgress& progress) {
  const std::unique_ptr<Checkpoint> c = Checkpoint::open(path);
  const ModelSpec& m = c->spec();
  const Bits bits = bits_of(*c);
  const std::vector<Codes> codes = codes_of(*c);
  InspectReport r{.format = std::string(c->format()),
                  .architecture = m.arch,
                  .blocks = int(m.blocks.size()),
                  .dim = m.dim,
                  .vocab = m.vocab,
                  .context = m.max_context,
                  .quantization = quantization_of(*c),
                  .head = head_type(*c),
                  .bytes = bits.bytes,
                  .weights = bits.weights,
                  .bits_per_weight = bits.per_weight(),
                  .memory = uint64_t(loaded_bytes(*Device(1, "").backend, *c)),
                  .ledger = ledger_of(*c),
                  .codes = kinds_of(codes),
                  .tensors = {},
                  .side_files = {},
                  .matrices = {}};
  for (const TensorInfo& t : c->tensors())
    r.tensors.push_back({t.name, t.type, t.shape.text(), t.bytes, std::string(name_of(t.use)), t.reason});
  for (const SideFile& f : c->side_files()) r.side_files.push_back(f.name);
  if (options.codes) r.matrices = read_codes(*c, codes, options.threads, progress);
  return r;
}

}  // namespace awq
