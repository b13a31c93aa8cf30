// AWQ: a scale per input channel from a small grid, judged by the output of what reads the scaled input; then a bound
// of each group's range. Lin et al., "AWQ: Activation-aware Weight Quantization", arXiv 2306.00978, in float
// throughout, with "no scaling" always among the candidates.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "quantizer/method.h"

namespace awq {
namespace {

constexpr int kGridSteps = 20;
// The grid is ranked by the layers' own losses, summed over about this many of their rows.
constexpr int64_t kRankingRows = 1024;
// Candidates that are then judged: by running the module, or on all rows.
constexpr size_t kFinalists = 5;

int64_t rows_of(const std::vector<Tensor>& weights) {
  int64_t rows = 0;
  for (const Tensor& w : weights) rows += w.shape()[0];
  return rows;
}

Tensor every(int64_t step, const Tensor& w) {
  const int64_t rows = (w.shape()[0] + step - 1) / step, cols = w.shape()[1];
  Tensor some = Tensor::empty({rows, cols}, DType::f32);
  for (int64_t r = 0; r < rows; ++r)
    std::ranges::copy(w.as<float>().subspan(size_t(r * step * cols), size_t(cols)), some.as<float>().data() + r * cols);
  return some;
}

// Over the rows that count; all where `counted` is empty.
double squared_distance(const Tensor& a, const Tensor& b, std::span<const uint8_t> counted) {
  const auto cols = size_t(a.shape()[1]);
  double sum = 0;
  for (size_t i = 0; i < a.as<float>().size(); ++i) {
    if (!counted.empty() && !counted[i / cols]) continue;
    const double d = double(a.as<float>()[i]) - double(b.as<float>()[i]);
    sum += d * d;
  }
  return sum;
}

using Scales = std::vector<std::vector<float>>;  // of each candidate

class Solver {
 public:
  Solver(BlockWeights& w, const Block& block, const BlockCalibration& calibration, const QuantSpec& spec, Backend& dev,
         const Host& host)
      : w_(w), block_(block), calibration_(calibration), spec_(spec), dev_(dev), host_(host) {}

  Solution run() {
    Scales scales;
    const std::map<Param, double> rounding = rounding_errors();
    const std::vector<ScaleGroup> groups = scale_groups(w_.spec);
    for (const ScaleGroup& g : groups) scales.push_back(g.producer ? search(g) : unscaled(g));
    for (size_t i = 0; i < scales.size(); ++i)
      if (groups[i].producer) fold(w_, groups[i], scales[i]);
    for (size_t i = 0; i < scales.size(); ++i) round_consumers(groups[i], scales[i], rounding);
    return std::move(solution_);
  }

 private:
  const SiteStatistics& site(const ScaleGroup& g) const { return calibration_.sites.at(g.consumers.front()); }
  std::vector<Tensor> consumers(const ScaleGroup& g) const {
    std::vector<Tensor> t;
    for (Param p : g.consumers) t.push_back(w_.tensor(p));
    return t;
  }

  std::map<Param, double> rounding_errors() const {
    std::map<Param, double> errors;
    for (const ScaleGroup& g : scale_groups(w_.spec))
      for (Param p : g.consumers) {
        const Tensor &w = w_.tensor(p), &gram = site(g).gram;
        errors[p] = relative(gram_loss(host_, w, dequantize(quantize(w, spec_)), gram), w, gram);
      }
    return errors;
  }

  double relative(double loss, const Tensor& w, const Tensor& gram) const {
    const double energy = gram_energy(host_, w, gram);
    return energy > 0 ? loss / energy : 0;
  }

  std::vector<float> unscaled(const ScaleGroup& g) const {
    return std::vector<float>(size_t(w_.spec.shape(g.consumers.front()).second), 1.f);
  }

  std::vector<float> search(const ScaleGroup& g) {
    std::vector<float> m = site(g).mean_abs(), wm = weight_mean(consumers(g), spec_.group_size);
    if (g.tied_heads > 1) {
      m = tied(m, g.tied_heads, g.head_dim);
      wm = tied(wm, g.tied_heads, g.head_dim);
    }
    const std::vector<Candidate> grid = candidates(kGridSteps);
    Scales scales;
    for (Candidate c : grid) scales.push_back(scales_of(c, m, wm));
    const std::vector<double> losses = losses_of(g, scales);
    const auto best = size_t(std::min_element(losses.begin(), losses.end()) - losses.begin());  // the first of equals
    if (!(losses[best] <= losses[0]))
      fail("quantize", "no finite loss at the input of {}; the weights or activations are damaged",
           name_of(g.consumers.front().role));
    const auto [low, high] = std::minmax_element(scales[best].begin(), scales[best].end());
    solution_.groups.push_back({g, grid[best], losses[best], losses[0], *low, *high, scales[best]});
    return scales[best];
  }

  // Infinity for candidates that are out.
  std::vector<double> losses_of(const ScaleGroup& g, const Scales& scales) const {
    const std::vector<Tensor> weights = consumers(g);
    const int64_t step = std::max<int64_t>(1, rows_of(weights) / kRankingRows);
    std::vector<Tensor> some;
    for (const Tensor& w : weights) some.push_back(step == 1 ? w : every(step, w));
    std::vector<double> ranking = gram_search(some, site(g).gram, scales);
    if (g.consumers.size() > 1) return judged_by_module(g, scales, finalists(ranking));
    if (step == 1) return ranking;
    return losses_among(finalists(ranking), weights, site(g).gram, scales);
  }

  // The loss is smooth in the ratio: every second one, then the neighbours of the best with and without the weight term
  // (candidates alternate between the two). Infinity where it was not computed.
  std::vector<double> gram_search(const std::vector<Tensor>& weights, const Tensor& gram, const Scales& scales) const {
    std::vector<size_t> wanted, near;
    for (size_t i = 0; i < scales.size(); i += 4) wanted.insert(wanted.end(), {i, i + 1});
    std::vector<double> losses = losses_among(wanted, weights, gram, scales);
    for (size_t term : {size_t(0), size_t(1)}) {
      size_t best = term;
      for (size_t i = term; i < losses.size(); i += 4)
        if (losses[i] < losses[best]) best = i;
      if (best >= 2) near.push_back(best - 2);
      if (best + 2 < losses.size()) near.push_back(best + 2);
    }
    const std::vector<double> fine = losses_among(near, weights, gram, scales);
    for (size_t i : near) losses[i] = fine[i];
    return losses;
  }

  std::vector<double> losses_among(const std::vector<size_t>& wanted, const std::vector<Tensor>& weights,
                                   const Tensor& gram, const Scales& scales) const {
    Scales some;
    for (size_t i : wanted) some.push_back(scales[i]);
    const std::vector<double> found = gram_losses(host_, weights, gram, some, spec_);
    std::vector<double> losses(scales.size(), INFINITY);
    for (size_t i = 0; i < wanted.size(); ++i) losses[wanted[i]] = found[i];
    return losses;
  }

  // The best of the ranking and identity, the first candidate.
  static std::vector<size_t> finalists(const std::vector<double>& ranking) {
    std::vector<size_t> order(ranking.size() - 1);
    std::iota(order.begin(), order.end(), size_t(1));
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return ranking[a] < ranking[b]; });
    order.resize(std::min(order.size(), kFinalists));
    order.push_back(0);
    return order;
  }

  // Infinity for the rest of the grid, which is out.
  std::vector<double> judged_by_module(const ScaleGroup& g, const Scales& scales,
                                       const std::vector<size_t>& chosen) const {
    std::vector<double> losses(scales.size(), INFINITY);
    const Tensor reference = module_output(g, block_);
    std::span<const uint8_t> counted;  // rows of gate's sample all count
    if (g.consumers.front().role == Role::q) counted = calibration_.sample_counted;
    for (size_t i : chosen) losses[i] = squared_distance(reference, module_output(g, replaced(g, scales[i])), counted);
    return losses;
  }

  Block replaced(const ScaleGroup& g, std::span<const float> s) const {
    Block b = block_;
    for (Param p : g.consumers) {
      const auto bias = w_.bias.find(p);
      b.linear[p] =
          dev_.linear(effective_weight(w_.tensor(p), s, spec_), bias == w_.bias.end() ? nullptr : &bias->second);
    }
    return b;
  }

  Tensor module_output(const ScaleGroup& g, const Block& b) const {
    const Tensor& x = site(g).sample;
    Tensor y = dev_.empty({x.shape()[0], w_.spec.dim});
    if (reads(g, Role::up)) mlp_forward(dev_, b, x, y);
    if (!reads(g, Role::q)) return y;
    Tensor mixed = attention_output(b, x);
    if (reads(g, Role::up)) dev_.add(y, 1, mixed);  // a parallel block adds both
    return mixed;
  }

  static bool reads(const ScaleGroup& g, Role role) { return std::ranges::count(g.consumers, Param{role}) != 0; }

  Tensor attention_output(const Block& b, const Tensor& x) const {
    Tensor y = dev_.empty({x.shape()[0], w_.spec.dim});
    std::vector<std::unique_ptr<KvCache>> caches;
    std::vector<Sequence> batch;
    for (int i = 0; i < calibration_.sample_sequences; ++i) {
      caches.push_back(dev_.kv_cache({&b.spec, 1}));
      batch.push_back({caches.back().get(), 0, calibration_.sequence_tokens});
    }
    attention_forward(dev_, b, batch, 0, x, y);
    return y;
  }

  // The statistics of inputs that have been divided by s.
  static Tensor scaled(const Tensor& gram, std::span<const float> s) {
    Tensor c = gram.clone();
    const size_t n = s.size();
    for (size_t i = 0; i < n; ++i)
      for (size_t j = i; j < n; ++j) c.as<float>()[i * n + j] /= s[i] * s[j];
    return c;
  }

  void round_consumers(const ScaleGroup& g, std::span<const float> s, const std::map<Param, double>& rounding) {
    const Tensor gram = scaled(site(g).gram, s);
    for (Param p : g.consumers) {
      const Tensor& w = w_.tensor(p);
      const std::vector<Range> ranges = best_ranges(host_, w, gram, spec_);
      QMatrix plain = quantize(w, spec_), clipped = quantize(w, spec_, ranges);
      const double plain_loss = gram_loss(host_, w, dequantize(plain), gram),
                   clipped_loss = gram_loss(host_, w, dequantize(clipped), gram);
      // Ranges were judged group by group; the whole rows have the last word.
      const bool cut = clipped_loss < plain_loss;
      solution_.layers.push_back(
          {p, relative(std::min(clipped_loss, plain_loss), w, gram), rounding.at(p), cut ? share_cut(w, ranges) : 0});
      solution_.matrices[p] = cut ? std::move(clipped) : std::move(plain);
      if (cut) solution_.ranges[p] = ranges;
    }
  }

  double share_cut(const Tensor& w, std::span<const Range> ranges) const {
    const auto g = size_t(spec_.group_size);
    size_t cut = 0;
    for (size_t i = 0; i < ranges.size(); ++i) cut += ranges[i] != range_of(w.as<float>().subspan(i * g, g));
    return double(cut) / double(ranges.size());
  }

  BlockWeights& w_;
  const Block& block_;
  const BlockCalibration& calibration_;
  const QuantSpec& spec_;
  Backend& dev_;
  const Host& host_;
  Solution solution_;
};

class Awq final : public Method {
 public:
  bool needs_calibration() const override { return true; }
  Solution solve(BlockWeights& w, const Block& block, const BlockCalibration& calibration, const QuantSpec& spec,
                 Backend& dev, const Host& host) const override {
    return Solver(w, block, calibration, spec, dev, host).run();
  }
};

}  // namespace

std::unique_ptr<Method> make_awq();
std::unique_ptr<Method> make_awq() { return std::make_unique<Awq>(); }

}  // namespace awq
