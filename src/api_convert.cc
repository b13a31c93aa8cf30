// awq::convert and awq::verify.
#include <chrono>
#include <functional>
#include <future>

#include "api_format.h"
#include "awq/awq.h"
#include "base/check.h"
#include "formats/compare.h"
#include "formats/folder.h"
#include "formats/load.h"
#include "formats/params.h"

namespace awq {
namespace {

namespace fs = std::filesystem;

// Clearing the pages of matrices as they come and go took a sixth of the time. These are a few of a 7B model's.
constexpr size_t kSpares = 192 << 20;

bool is_block_matrix(int block, Param p) { return block >= 0 && !is_norm(p.role); }

/// How the matrices of the blocks are stored: one spec for all, with group -1 where rows are groups. Nothing where none
/// is quantized.
std::optional<QuantSpec> spec_of_blocks(const Checkpoint& model) {
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
  if (!spec) return spec;
  if (rows) spec->group_size = -1;
  spec->symmetric = symmetric;
  return spec;
}

QuantSpec spec_for(const Checkpoint& model, const Format& format) {
  const auto spec = spec_of_blocks(model);
  if (!spec && !format.round)
    fail("convert", "{}: no matrix of it is quantized; `awq quantize` does that", model.described_in());
  return spec.value_or(QuantSpec{});
}

/// What is refused before anything is written.
void check_target(const Checkpoint& model, const FormatChoice& choice, const QuantSpec& spec, int devices) {
  choice.check_group("convert", model.described_in(), spec.group_size);
  choice.check_devices("convert", model.spec(), devices, [&](int block, Param p) -> std::optional<QuantSpec> {
    const Pieces w = model.pieces(block, p);
    if (const auto* q = std::get_if<QuantSpec>(&w.type)) return *q;
    return {};
  });
  for (const auto& [block, p] : params_of(model.spec()))
    if (is_block_matrix(block, p))
      choice.check_matrix(parameter_name(model.spec(), block, p), p.role, model.pieces(block, p));
}

class Converter {
 public:
  Converter(const Checkpoint& source, const Format& format, const ConvertOptions& o, const OnProgress& progress)
      : source_(source),
        format_(format),
        allowed_(losses_of(o.allow)),
        progress_(progress),
        pool_(o.threads),
        rounds_(format.round && (!format.holds || !spec_of_blocks(source))) {}

  ConvertReport run(const fs::path& out, QuantSpec quant) {
    if (format_.holds && format_.holds->offsets) quant.offsets = true;
    sink_ = format_.create(out, source_.config(), source_.spec(), quant);
    for (const SideFile& f : source_.side_files()) sink_->put_side_file(f);
    sink_->begin();
    const auto params = params_of(source_.spec());
    for (int done = 0; const auto& [block, p] : params) {
      put(block, p);
      if (progress_ && !progress_({"convert", ++done, int(params.size())})) throw Cancelled();
    }
    written();
    put_carried(source_, *sink_);
    sink_->finish();
    sink_.reset();
    report_.left_out = source_.left_out();
    return std::move(report_);
  }
  ThreadPool& pool() { return pool_; }

 private:
  /// While a parameter is packed and written, the next one is read: two of them are in memory.
  void write(std::function<void()> put) {
    written();
    writing_ = std::async(std::launch::async, std::move(put));
  }
  void written() {
    if (writing_.valid()) writing_.get();
  }

  void put(int block, Param p) {
    const bool head = p.role == Role::embed || p.role == Role::head;
    const std::string name = parameter_name(source_.spec(), block, p);
    if (is_norm(p.role))
      write([this, block, p, w = source_.weight(block, p)] { sink_->put(block, p, w); });
    else
      put_matrix(block, p, name, head);
    if (!has_bias(source_.spec(), block, p)) return;
    write([this, block, p, b = source_.bias(block, p)] { sink_->put_bias(block, p, b); });
    ++report_.floats;
  }

  void put_matrix(int block, Param p, const std::string& name, bool outer) {
    const Pieces w = source_.pieces(block, p);
    if (!std::holds_alternative<QuantSpec>(w.type)) {
      const Tensor t = std::get<Tensor>(source_.weight(block, p));
      write([this, block, p, t, w = rounded(is_table(p.role) ? narrowed(t) : t, outer, name, p.role)] {
        sink_->put(block, p, w);
        drop_pages({t.data(), t.bytes()}, t.owner());
      });
      ++report_.floats;
      return;
    }
    const QMatrix q = whole_codes(w, pool_);
    if (const auto fits = in_codes(q, outer, name)) {
      write([this, block, p, w = *fits] { sink_->put(block, p, w); });
      ++report_.matrices;
      return;
    }
    write([this, block, p, w = rounded(narrowed(dequantize(q)), outer, name, p.role)] { sink_->put(block, p, w); });
    report_.dequantized.push_back(name);
  }

  /// Nothing where the matrix is to be in floats.
  std::optional<QMatrix> in_codes(const QMatrix& q, bool outer, const std::string& name) const {
    if (!format_.holds || (outer && !format_.holds->outer)) return {};
    try {
      return fitted(q, *format_.holds, allowed_, name);
    } catch (const Error&) {
      if (!outer) throw;
      return {};  // the embedding and the head may be in floats
    }
  }

  Weight rounded(const Tensor& t, bool outer, const std::string& name, Role role) const {
    return rounds_ && !stays_float(role) ? format_.round(t, outer, name) : Weight(t);
  }

  const Checkpoint& source_;
  const Format& format_;
  Losses allowed_;
  const OnProgress& progress_;
  ThreadPool pool_;
  bool rounds_;  // matrices in floats too
  ConvertReport report_;
  std::unique_ptr<CheckpointSink> sink_;
  std::future<void> writing_;  // into it
};

void fill(ConvertReport& r, const Difference& d) {
  r.exact = d.exact();
  r.largest_error = d.largest;
  r.mean_error = d.mean();
  r.where = d.where;
}

std::vector<std::string> dropped(const Checkpoint& source) {
  std::vector<std::string> names;
  for (const TensorInfo& t : source.tensors())
    if (t.use == TensorUse::dropped) names.push_back(t.name);
  return names;
}

}  // namespace

ConvertReport convert(const fs::path& from, const fs::path& to, const ConvertOptions& o, const OnProgress& progress) {
  const auto begin = std::chrono::steady_clock::now();
  const FormatChoice choice = choose_format("convert", o.format, o.target);
  const Format& format = *choice.format;
  const auto source = Checkpoint::open(from);
  const QuantSpec spec = spec_for(*source, format);
  check_target(*source, choice, spec, o.tensor_parallel);
  const LargeSpares spares(kSpares);
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
  const LargeSpares spares(kSpares);
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
