#include "quantizer/quantize.h"

#include <algorithm>
#include <cmath>
#include <future>
#include <numeric>
#include <random>

#include "formats/load.h"
#include "formats/params.h"
#include "model/stream.h"

namespace awq {
namespace {

// Folding multiplies and divides by s: each factor is rounded twice (2^-24 relative each), a sum of K such products
// moves by about sqrt(K) * 2^-23, and a block chains four of them. 1e-5 is some 40 times that at K = 1,000; a wrong
// fold is off by the scales themselves, 1e-1 and more.
constexpr double kFoldTolerance = 1e-5;

Tensor float_output(Backend& dev, const Block& b, const Tensor& input) {
  Tensor x = input.clone();
  run_sequences(dev, b, int(input.shape()[0]), x);
  return hidden_of(x, b.spec.dim);
}

double relative_change(const Tensor& before, const Tensor& after) {
  double change = 0, energy = 0;
  for (size_t i = 0; i < before.as<float>().size(); ++i) {
    const double a = before.as<float>()[i], d = double(after.as<float>()[i]) - a;
    change += d * d;
    energy += a * a;
  }
  return energy > 0 ? std::sqrt(change / energy) : std::sqrt(change);
}

// For a fold of scales that were not searched here: a sequence that any norm and every channel sees.
Tensor noise(const ModelSpec& spec) {
  std::mt19937 random(1);
  const int64_t width = stream_width(spec);
  Tensor x = Tensor::empty({32, width}, DType::f32);
  for (float& v : x.as<float>()) v = float(int64_t(random())) / 0x1p31f - 1;
  for (int64_t t = 0; spec.own_input && t < 32; ++t)
    x.as<float>()[size_t(t * width + spec.dim)] = float(t % spec.vocab);
  return x;
}

Piece narrowed(Piece band, const std::string& name) {
  const Tensor half = std::get<Tensor>(band.weight).to(DType::f16);
  for (uint16_t bits : half.bits16())
    if ((bits & 0x7c00) == 0x7c00)
      fail("quantize",
           "{}: a weight does not fit into F16, in which it would be kept; where --keep or --budget chose it, leave it "
           "out of what is kept",
           name);
  band.weight = half;
  return band;
}

/// in_type, checked.
Pieces in_f16(Pieces w, const std::string& name) {
  w.type = DType::f16;
  w.read = [read = w.read, name](int64_t i) { return narrowed(read(i), name); };
  return w;
}

/// As a file holds it.
int64_t bytes_of(const Weight& w) {
  if (const auto* t = std::get_if<Tensor>(&w)) return int64_t(t->bytes());
  const auto& q = std::get<QMatrix>(w);
  return int64_t(double(q.codes.shape().elements()) * bits_per_weight(q.spec, q.cols()) / 8);
}

constexpr size_t kSalient = 5;

/// Says what a group's input looked like; the first of equal channels comes first.
void describe_input(const SiteStatistics& site, GroupResult& g) {
  const std::vector<float> m = site.mean_abs();
  std::vector<int64_t> order(m.size());
  std::iota(order.begin(), order.end(), int64_t(0));
  const auto larger = [&](int64_t a, int64_t b) { return std::pair(-m[size_t(a)], a) < std::pair(-m[size_t(b)], b); };
  std::partial_sort(order.begin(), order.begin() + ptrdiff_t(std::min(kSalient, m.size())), order.end(), larger);
  order.resize(std::min(kSalient, m.size()));
  for (int64_t c : order) g.salient.push_back({c, m[size_t(c)], g.scales[size_t(c)]});
  g.dead = std::ranges::count(m, 0.f);
  g.mean_abs = float(std::accumulate(m.begin(), m.end(), 0.0) / double(m.size()));
}

/// Says how many tokens a layer was judged on. A routed expert's own are those that its down saw.
void describe_tokens(const BlockSpec& spec, const BlockCalibration& calibration, LayerResult& l) {
  for (const ScaleGroup& g : scale_groups(spec))
    if (std::ranges::count(g.consumers, l.param)) {
      const SiteStatistics& own = calibration.sites.at(g.consumers.front());
      l.tokens = own.tokens, l.forced = own.forced;
    }
  if (!spec.is_routed(l.param)) return;
  const SiteStatistics& expert = calibration.sites.at({Role::down, l.param.expert});
  l.routed = expert.tokens - expert.forced;
}

// Four rows of counters: equal codes in a row would wait for each other's sum.
std::vector<int64_t> counts_of(const QMatrix& q) {
  std::array<std::array<int64_t, 256>, 4> counts{};
  const auto codes = q.codes.as<uint8_t>();
  for (size_t i = 0; i < codes.size(); ++i) ++counts[i % 4][codes[i]];
  std::vector<int64_t> all;
  for (size_t c = 0; c <= size_t(q.spec.levels()); ++c)
    all.push_back(counts[0][c] + counts[1][c] + counts[2][c] + counts[3][c]);
  return all;
}

/// One block up to its solution.
class BlockJob {
 public:
  BlockJob(const QuantizeFlow& f, int index, double last_error)
      : f_(f), index_(index), last_error_(last_error), result_{.block = index, .solution = {}, .costs = {}} {
    const Timed timed(result_.costs.load);
    w_ = load_float_block(f.source, index, f.host.pool);
    for (const auto& [p, w] : w_.at) result_.costs.load.bytes += int64_t(std::get<Tensor>(w).bytes());
  }

  /// `ready` is called before this block's statistics are allocated and the input of the block before it, which that
  /// block's state still counts on, is written over.
  void run(const std::function<void()>& ready) {
    BlockCalibration calibration;
    Tensor input, output;
    if (f_.method.folds()) {
      input = f_.hidden ? f_.hidden->input(index_).read(0, f_.hidden->length()) : noise(f_.source.spec());
      output = wide_output(input);
    }
    if (f_.hidden) block_ = uploaded();
    ready();
    if (f_.hidden) calibration = observed();
    report("search");
    const auto go_on = [&] { report("search"); };
    result_.solution = f_.method.solve(w_, block_, calibration, {f_.spec, f_.dev, f_.host, result_.costs, go_on});
    if (f_.hidden) {
      for (GroupResult& g : result_.solution.groups) describe_input(calibration.sites.at(g.group.consumers.front()), g);
      for (LayerResult& l : result_.solution.layers) describe_tokens(w_.spec, calibration, l);
    }
    calibration = {};
    block_ = {};  // never in memory beside the folded one
    if (input) check_fold(input, output);
    for (LayerResult& l : result_.solution.layers)
      if (f_.kept.contains({index_, l.param})) keep(l);
    for (Param p : w_.spec.params())
      if (stays_float(p.role)) w_.at[p] = half(p);
    for (const auto& [p, q] : result_.solution.matrices) w_.at.erase(p);  // the next block is loaded meanwhile
  }

  const BlockResult& result() const { return result_; }

  /// Puts everything into the sink; the caller may go on with another block meanwhile.
  void write() {
    {
      const Timed timed(result_.costs.write);
      for (Param p : w_.spec.params()) put(p);
      for (LayerResult& l : result_.solution.layers)
        if (const auto q = result_.solution.matrices.find(l.param); q != result_.solution.matrices.end())
          l.codes = counts_of(q->second);
    }
    if (f_.finished) f_.finished(result_);
  }

 private:
  int blocks() const { return int(f_.source.spec().blocks.size()); }
  void report(std::string_view stage) const {
    if (f_.progress) f_.progress({stage, index_, blocks(), last_error_});
  }

  BlockCalibration observed() {
    const bool last = index_ + 1 == blocks();
    HiddenStates states = f_.hidden->around(index_, last);
    if (f_.weights) states.weights = f_.weights->of(index_);
    return calibrate(f_.dev, f_.host, block_, index_, states, f_.calibration, result_.costs,
                     [&](int64_t) { report("calibrate"); });
  }

  // Without tiles a file of codes is multiplied as it is stored: faster than the floats that it stands for.
  Block uploaded() {
    const Timed timed(result_.costs.load);
    const bool codes = std::holds_alternative<QuantSpec>(f_.source.pieces(index_, {Role::o}).type);
    if (codes && !has_tiles(f_.host.kernels)) return load_block(f_.dev, f_.source, index_);
    return upload(f_.dev, w_, running_type(f_.host.kernels));
  }

  // 16-bit weights are multiplied by other kernels than folded ones, which are f32.
  Tensor wide_output(const Tensor& input) {
    const Timed timed(result_.costs.check, block_operations(w_.spec, input.shape()[0]));
    return float_output(f_.dev, upload(f_.dev, w_, DType::f32), input);
  }

  void check_fold(const Tensor& input, const Tensor& before) {
    const Timed timed(result_.costs.check, block_operations(w_.spec, input.shape()[0]));
    result_.fold_error = relative_change(before, float_output(f_.dev, upload(f_.dev, w_, DType::f32), input));
    if (!(result_.fold_error <= kFoldTolerance))
      fail("quantize",
           "block {}: folding the scales changed the float block's output by {:.2g} (at most {:.0g} is rounding), so "
           "the "
           "file would be wrong. Please report the model; `--method rtn` does not fold",
           index_, result_.fold_error, kFoldTolerance);
  }

  void keep(LayerResult& l) {
    l.kept = true;
    result_.solution.matrices.erase(l.param);
    w_.at[l.param] = half(l.param);
  }
  /// A matrix that stays in floats, as it is after the fold.
  Tensor half(Param p) const {
    return whole(in_f16(w_.pieces(p), parameter_name(f_.source.spec(), index_, p)), f_.host.pool);
  }

  void put(Param p) {
    const auto q = result_.solution.matrices.find(p);
    const Weight w = q != result_.solution.matrices.end() ? Weight(q->second) : w_.at.at(p);
    result_.costs.write.bytes += bytes_of(w);
    f_.sink.put(index_, p, w);
    if (const auto b = w_.bias.find(p); b != w_.bias.end()) f_.sink.put_bias(index_, p, b->second);
  }

  const QuantizeFlow& f_;
  int index_;
  double last_error_;
  BlockWeights w_;
  Block block_;
  BlockResult result_;
};

// 32-bit tables are stored in 16 bits: f16 keeps 11 significant bits, which is what every engine computes with.
Tensor stored(const QuantizeFlow& f, Role role) {
  const Pieces table = f.source.float_pieces(-1, {role});
  const bool wide = std::get<DType>(table.type) == DType::f32;
  return whole(wide ? in_f16(table, parameter_name(f.source.spec(), -1, {role})) : table, f.host.pool);
}

void put_norm(const QuantizeFlow& f, Param p) {
  f.sink.put(-1, p, f.source.weight(-1, p));
  if (has_bias(f.source.spec(), -1, p)) f.sink.put_bias(-1, p, f.source.bias(-1, p));
}

void put_tables(const QuantizeFlow& f) {
  const ModelSpec& m = f.source.spec();
  f.sink.put(-1, {Role::embed}, stored(f, Role::embed));
  if (m.learned_positions) f.sink.put(-1, {Role::positions}, stored(f, Role::positions));
  if (m.embed_norm) put_norm(f, {Role::embed_norm});
  if (!m.own_input) return;
  const Weight table = f.source.weight(-1, {Role::own_embed});  // may be larger than all blocks
  const bool wide = std::get<Tensor>(table).dtype() == DType::f32;
  f.sink.put(-1, {Role::own_embed}, wide ? stored(f, Role::own_embed) : table);
  f.sink.put(-1, {Role::own_projection}, stored(f, Role::own_projection));
  put_norm(f, {Role::own_norm});
}

void put_outer(const QuantizeFlow& f) {
  const ModelSpec& m = f.source.spec();
  if (m.final_norm.gain) put_norm(f, {Role::final_norm});
  if (m.head_bias) f.sink.put_bias(-1, {Role::head}, f.source.bias(-1, {Role::head}));
  if (f.head)
    f.sink.put(-1, {Role::head}, quantize(load_float_pieces(f.source, -1, head_param(m)), *f.head, f.host.pool));
  else if (!m.tied_embeddings)
    f.sink.put(-1, {Role::head}, stored(f, Role::head));
  put_carried(f.source, f.sink);
}

/// Writes a block while the next one is loaded. One thread for all blocks: the allocator keeps memory for each that
/// there ever was.
class Writer {
 public:
  void begin(std::unique_ptr<BlockJob> job) {
    auto task = std::make_shared<std::packaged_task<void()>>([job = std::shared_ptr(std::move(job))] { job->write(); });
    done_ = task->get_future();
    thread_.add([task] { (*task)(); });
  }
  /// Waits, and throws what writing threw.
  void finish() {
    if (done_.valid()) done_.get();
  }

 private:
  std::future<void> done_;
  TaskThread thread_;
};

/// Where each token of the vocabulary's rows [first, first + rows) stands.
std::vector<std::pair<int32_t, int64_t>> places_of(std::span<const std::vector<int32_t>> sequences, int64_t first,
                                                   int64_t rows) {
  std::vector<std::pair<int32_t, int64_t>> places;
  for (int64_t at = 0; const auto& s : sequences)
    for (int32_t t : s) {
      if (t >= first && t < first + rows) places.emplace_back(int32_t(t - first), at);
      ++at;
    }
  return places;
}

void require_in_vocabulary(std::span<const std::vector<int32_t>> sequences, int vocab) {
  for (const auto& s : sequences)
    for (int32_t t : s)
      if (t < 0 || t >= vocab) fail("calibrate", "token {} is outside the vocabulary of {}", t, vocab);
}

}  // namespace

bool group_fits(const ModelSpec& spec, int group) {
  for (const BlockSpec& b : spec.blocks)
    for (Param p : b.params())
      if (!is_norm(p.role) && b.shape(p).second % group) return false;
  return true;
}

double BlockResult::mean_error() const {
  double sum = 0, layers = 0;
  for (const LayerResult& l : solution.layers)
    if (!l.kept) sum += l.error, ++layers;
  return layers > 0 ? sum / layers : 0;
}

// The table is read once, band by band: it may be larger than a block.
void embed_tokens(Backend& dev, const Checkpoint& source, std::span<const std::vector<int32_t>> sequences,
                  HiddenFiles& hidden) {
  const ModelSpec& spec = source.spec();
  require_in_vocabulary(sequences, spec.vocab);
  const Pieces table = source.float_pieces(-1, {Role::embed});
  for (int64_t i = 0; i < table.count; ++i) {
    const Piece piece = table.read(i);
    const auto& band = std::get<Tensor>(piece.weight);
    Tensor x = dev.empty({1, spec.dim});
    for (const auto& [token, place] : places_of(sequences, piece.row, band.shape()[0])) {
      dev.embed(band, {&token, 1}, spec.embed_scale, x);
      hidden.input(0).write(place, stream_of(spec, x, {&token, 1}));
    }
  }
  if (!spec.learned_positions && !spec.embed_norm) return;
  const Embedding embed = load_embedding(source);
  for (int64_t begin = 0; begin < hidden.tokens(); begin += hidden.length()) {
    Tensor x = hidden_of(hidden.input(0).read(begin, begin + hidden.length()), spec.dim);
    const Sequence s{nullptr, 0, hidden.length()};
    embed_places(dev, spec, embed, {&s, 1}, x);
    hidden.input(0).write(begin, stream_of(spec, x, sequences[size_t(begin / hidden.length())]));
  }
}

BlockResult try_block(const QuantizeFlow& flow, int block) {
  BlockJob job(flow, block, -1);
  job.run([] {});
  return job.result();
}

void quantize_blocks(const QuantizeFlow& f, int first) {
  if (first == 0) put_tables(f);
  double last_error = -1;
  Writer writer;
  for (int i = first; i < int(f.source.spec().blocks.size()); ++i) {
    auto job = std::make_unique<BlockJob>(f, i, last_error);
    job->run([&] { writer.finish(); });
    last_error = job->result().mean_error();
    writer.begin(std::move(job));
  }
  writer.finish();
  put_outer(f);
}

}  // namespace awq
