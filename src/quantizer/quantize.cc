#include "quantizer/quantize.h"

#include <cmath>
#include <random>

#include "formats/load.h"
#include "formats/params.h"

namespace awq {
namespace {

// Folding multiplies and divides by s: each factor is rounded twice (2^-24 relative each), a sum of K such products
// moves by about sqrt(K) * 2^-23, and a block chains four of them. 1e-5 is some 40 times that at K = 1,000; a wrong
// fold is off by the scales themselves, 1e-1 and more.
constexpr double kFoldTolerance = 1e-5;

Tensor embedded(const QuantizeFlow& f) {
  std::vector<int32_t> tokens;
  std::vector<Sequence> batch;
  for (const auto& s : f.sequences) {
    tokens.insert(tokens.end(), s.begin(), s.end());
    batch.push_back({nullptr, 0, int(s.size())});
  }
  return embed_forward(f.dev, f.source.spec(), load_embedding(f.source), tokens, batch);
}

Tensor float_output(Backend& dev, const Block& b, const Tensor& input) {
  Tensor x = input.clone();
  const auto kv = dev.kv_cache({&b.spec, 1});
  const Sequence s{kv.get(), 0, int(input.shape()[0])};
  block_forward(dev, b, {&s, 1}, 0, x);
  return x;
}

// For a fold of scales that were not searched here: a sequence that any norm and every channel sees.
Tensor noise(int dim) {
  std::mt19937 random(1);
  Tensor x = Tensor::empty({32, dim}, DType::f32);
  for (float& v : x.as<float>()) v = float(int64_t(random())) / 0x1p31f - 1;
  return x;
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

class BlockJob {
 public:
  BlockJob(const QuantizeFlow& f, int index)
      : f_(f), index_(index), w_(load_float_block(f.source, index)), result_{.block = index, .solution = {}} {}

  BlockResult run(Tensor& hidden, double last_error) {
    solve(hidden, last_error);
    if (f_.on_solved) f_.on_solved(index_, result_.solution);
    report("write", last_error);
    for (Param p : w_.spec.params()) write(p);
    result_.solution.matrices.clear();
    result_.solution.ranges.clear();
    std::erase_if(result_.solution.layers, [&](const LayerResult& l) { return keeps(l.param); });
    return std::move(result_);
  }

 private:
  void report(std::string_view stage, double last_error) const {
    if (f_.progress) f_.progress({stage, index_, int(f_.source.spec().blocks.size()), last_error});
  }

  void solve(Tensor& hidden, double last_error) {
    const Block block = upload(f_.dev, w_);
    BlockCalibration calibration;
    Tensor input;
    if (f_.method.needs_calibration()) {
      report("calibrate", last_error);
      const int length = int(f_.sequences.front().size());
      input = hidden.rows(0, length).clone();
      calibration = calibrate(f_.dev, f_.host, block, index_, hidden, length, f_.calibration);
      result_.tokens = calibration.sites.begin()->second.tokens;
    }
    report("search", last_error);
    result_.solution = f_.method.solve(w_, block, calibration, f_.spec, f_.dev, f_.host);
    if (!result_.solution.groups.empty()) check_fold(block, input ? input : noise(w_.spec.dim));
  }

  void check_fold(const Block& original, const Tensor& input) {
    result_.fold_error =
        relative_change(float_output(f_.dev, original, input), float_output(f_.dev, upload(f_.dev, w_), input));
    if (!(result_.fold_error <= kFoldTolerance))
      fail("quantize",
           "block {}: folding the scales changed the float block's output by {:.2g} (at most {:.0g} is rounding). The "
           "file would be "
           "wrong; nothing was written. Please report the model; `--method rtn` does not fold",
           index_, result_.fold_error, kFoldTolerance);
  }

  void write(Param p) {
    const auto q = result_.solution.matrices.find(p);
    if (keeps(p))
      f_.sink.put(index_, p, in_16_bits(p));
    else if (q != result_.solution.matrices.end())
      f_.sink.put(index_, p, q->second);
    else
      f_.sink.put(index_, p, w_.at.at(p));
    if (const auto b = w_.bias.find(p); b != w_.bias.end()) f_.sink.put_bias(index_, p, b->second);
  }

  bool keeps(Param p) const { return f_.kept.contains({index_, p}); }

  Tensor in_16_bits(Param p) const {
    const Tensor half = w_.tensor(p).to(DType::f16);
    for (uint16_t bits : half.bits16())
      if ((bits & 0x7c00) == 0x7c00)
        fail("quantize",
             "{}: a weight does not fit into F16, in which layers are kept; leave this layer out of what is kept",
             parameter_name(f_.source.spec(), index_, p));
    return half;
  }

  const QuantizeFlow& f_;
  int index_;
  BlockWeights w_;
  BlockResult result_;
};

double mean_error(const Solution& s) {
  double sum = 0;
  for (const LayerResult& l : s.layers) sum += l.error;
  return s.layers.empty() ? 0 : sum / double(s.layers.size());
}

// 32-bit tables are stored in 16 bits: f16 keeps 11 significant bits, which is what every engine computes with.
Tensor stored(const Tensor& t) { return t.dtype() == DType::f32 ? t.to(DType::f16) : t; }

void put_norm(const QuantizeFlow& f, Param p) {
  f.sink.put(-1, p, f.source.weight(-1, p));
  if (has_bias(f.source.spec(), -1, p)) f.sink.put_bias(-1, p, f.source.bias(-1, p));
}

void put_tables(const QuantizeFlow& f) {
  const ModelSpec& m = f.source.spec();
  f.sink.put(-1, {Role::embed}, stored(std::get<Tensor>(f.source.weight(-1, {Role::embed}))));
  if (m.learned_positions)
    f.sink.put(-1, {Role::positions}, stored(std::get<Tensor>(f.source.weight(-1, {Role::positions}))));
  if (m.embed_norm) put_norm(f, {Role::embed_norm});
}

void put_outer(const QuantizeFlow& f) {
  const ModelSpec& m = f.source.spec();
  if (m.final_norm.gain) put_norm(f, {Role::final_norm});
  if (m.head_bias) f.sink.put_bias(-1, {Role::head}, f.source.bias(-1, {Role::head}));
  if (f.head)
    f.sink.put(-1, {Role::head}, quantize(load_float_pieces(f.source, -1, head_param(m)), *f.head, f.host.pool));
  else if (!m.tied_embeddings)
    f.sink.put(-1, {Role::head}, stored(std::get<Tensor>(f.source.weight(-1, {Role::head}))));
}

}  // namespace

bool group_fits(const ModelSpec& spec, int group) {
  for (const BlockSpec& b : spec.blocks)
    for (Param p : b.params())
      if (!is_norm(p.role) && b.shape(p).second % group) return false;
  return true;
}

std::vector<BlockResult> quantize_blocks(const QuantizeFlow& f) {
  std::vector<BlockResult> results;
  Tensor hidden = f.method.needs_calibration() ? embedded(f) : Tensor();
  put_tables(f);
  double last_error = -1;
  for (int i = 0; i < int(f.source.spec().blocks.size()); ++i) {
    results.push_back(BlockJob(f, i).run(hidden, last_error));
    last_error = mean_error(results.back().solution);
  }
  put_outer(f);
  return results;
}

}  // namespace awq
