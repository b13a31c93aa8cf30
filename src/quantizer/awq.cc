// AWQ: a scale per input channel from a small grid, judged by the output of what reads the scaled input; then a bound
// of each group's range. Lin et al., "AWQ: Activation-aware Weight Quantization", arXiv 2306.00978, in float
// throughout, with "no scaling" always among the candidates.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "quantizer/awq.h"
#include "quantizer/gptq.h"
#include "quantizer/module_loss.h"

namespace awq {
namespace {

constexpr int kGridSteps = 20;
// The grid is ranked by the layers' own losses, summed over about this many of their rows.
constexpr int64_t kRankingRows = 256;
// Of experts' first layers, instead of running hundreds of them for each finalist.
constexpr int64_t kExpertRows = 16384;
// Candidates that are then judged: by running the module, or on all rows.
constexpr size_t kFinalists = 3;
// Against 1024 rows, 5 finalists, 4 sequences and 1024 tokens of samples (CalibrationOptions): 0.1340 +- 0.0062 nats of
// KL against 0.1332 +- 0.0051, and 43 % of the search's time (SmolLM2, 16 x 512 tokens, 4 windows of WikiText-2).

int64_t total_rows(const std::vector<Rows>& weights) {
  int64_t rows = 0;
  for (const Rows& w : weights) rows += w.rows;
  return rows;
}

/// About so many of all rows, evenly spread, as one matrix: hundreds of experts have few rows each.
std::vector<Rows> sampled(const std::vector<Rows>& weights, int64_t wanted) {
  const int64_t step = std::max<int64_t>(1, total_rows(weights) / wanted);
  return {every(step, joined(weights))};
}

using Scales = std::vector<std::vector<float>>;  // of each candidate

class Solver {
 public:
  Solver(const std::optional<Refinement>& refinement, BlockWeights& w, const Block& block,
         const BlockCalibration& calibration, const SolveContext& context)
      : refinement_(refinement),
        w_(w),
        block_(block),
        calibration_(calibration),
        spec_(context.spec),
        host_(context.host),
        context_(context) {}

  Solution run() {
    const std::vector<ScaleGroup> groups = scale_groups(w_.spec);
    for (const ScaleGroup& g : groups) {
      const QuadraticForm form = form_of(g);
      if (g.producer) search(g, form);
      measure(g, form);
    }
    for (const GroupResult& g : solution_.groups) fold(w_, g.group, g.scales);
    for (const ScaleGroup& g : groups) round_consumers(g, solution_.scales(g, gram(g).channels()));
    return std::move(solution_);
  }

 private:
  /// Of the layer as it was.
  struct Before {
    double energy, rounding;
  };

  const SiteStatistics& site(const ScaleGroup& g) const { return calibration_.sites.at(g.consumers.front()); }
  const Gram& gram(const ScaleGroup& g) const { return site(g).gram; }
  int group_size(int64_t cols) const { return spec_.of_width(cols).group_size; }
  std::vector<Rows> consumers(const ScaleGroup& g) const {
    std::vector<Rows> t;
    for (Param p : g.consumers) t.push_back(rows_of(w_, p));
    return t;
  }
  void begin(StageCost& stage, double operations) const {
    stage.operations += operations;
    if (context_.progress) context_.progress();
  }

  QuadraticForm form_of(const ScaleGroup& g) const {
    const Timed timed(context_.costs.search);
    return {host_, gram(g)};
  }

  void measure(const ScaleGroup& g, const QuadraticForm& form) {
    const Timed timed(context_.costs.search);
    const std::vector<float> ones(size_t(gram(g).channels()), 1.f);
    for (Param p : g.consumers) {
      const Rows w = rows_of(w_, p);
      begin(context_.costs.search, 2 * QuadraticForm::operations(w));
      before_[p] = {form.energy(w), form.loss(w, effective(w, ones, spec_))};
    }
  }

  static bool reads(const ScaleGroup& g, Role role) { return std::ranges::count(g.consumers, Param{role}) != 0; }

  static double relative(double loss, double energy) { return energy > 0 ? loss / energy : 0; }

  void search(const ScaleGroup& g, const QuadraticForm& form) {
    const Timed timed(context_.costs.search);
    std::vector<float> m = site(g).mean_abs(), wm = weight_mean(host_, consumers(g), group_size(gram(g).channels()));
    if (g.tied_heads > 1) {
      m = tied(m, g.tied_heads, g.head_dim);
      wm = tied(wm, g.tied_heads, g.head_dim);
    }
    const std::vector<Candidate> grid = candidates(kGridSteps);
    Scales scales;
    for (Candidate c : grid) scales.push_back(scales_of(c, m, wm));
    const std::vector<double> losses = losses_of(g, form, scales);
    const auto best = size_t(std::min_element(losses.begin(), losses.end()) - losses.begin());  // the first of equals
    if (!(losses[best] <= losses[0]))
      fail("quantize", "no finite loss at the input of {}; the weights or activations are damaged",
           name_of(g.consumers.front().role));
    const auto [low, high] = std::minmax_element(scales[best].begin(), scales[best].end());
    solution_.groups.push_back({g, grid[best], losses[best], losses[0], *low, *high, scales[best]});
  }

  // Infinity for candidates that are out.
  std::vector<double> losses_of(const ScaleGroup& g, const QuadraticForm& form, const Scales& scales) const {
    const std::vector<Rows> weights = consumers(g);
    const std::vector<Rows> some = sampled(weights, kRankingRows);
    std::vector<double> ranking = gram_search(some, form, scales);
    if (w_.spec.experts && reads(g, Role::up))
      return losses_among(finalists(ranking), sampled(weights, kExpertRows), form, scales);
    if (g.consumers.size() > 1 && reads_module_input(w_.spec, g))
      return judged_by_module(g, form, scales, finalists(ranking));
    if (refinement_) return refined_losses(finalists(ranking), weights, form, scales);
    if (some.front().rows == total_rows(weights)) return ranking;  // nothing was left out
    return losses_among(finalists(ranking), weights, form, scales);
  }

  // The loss is smooth in the ratio: every second one, then the neighbours of the best with and without the weight term
  // (candidates alternate between the two). Infinity where it was not computed.
  std::vector<double> gram_search(const std::vector<Rows>& weights, const QuadraticForm& form,
                                  const Scales& scales) const {
    std::vector<size_t> wanted, near;
    for (size_t i = 0; i < scales.size(); i += 4) wanted.insert(wanted.end(), {i, i + 1});
    std::vector<double> losses = losses_among(wanted, weights, form, scales);
    for (size_t term : {size_t(0), size_t(1)}) {
      size_t best = term;
      for (size_t i = term; i < losses.size(); i += 4)
        if (losses[i] < losses[best]) best = i;
      if (best >= 2) near.push_back(best - 2);
      if (best + 2 < losses.size()) near.push_back(best + 2);
    }
    const std::vector<double> fine = losses_among(near, weights, form, scales);
    for (size_t i : near) losses[i] = fine[i];
    return losses;
  }

  std::vector<double> losses_among(const std::vector<size_t>& wanted, const std::vector<Rows>& weights,
                                   const QuadraticForm& form, const Scales& scales) const {
    for (const Rows& w : weights) begin(context_.costs.search, double(wanted.size()) * QuadraticForm::operations(w));
    Scales some;
    for (size_t i : wanted) some.push_back(scales[i]);
    const std::vector<double> found = gram_losses(form, weights, some, spec_);
    std::vector<double> losses(scales.size(), INFINITY);
    for (size_t i = 0; i < wanted.size(); ++i) losses[wanted[i]] = found[i];
    return losses;
  }

  std::vector<double> refined_losses(const std::vector<size_t>& wanted, const std::vector<Rows>& weights,
                                     const QuadraticForm& form, const Scales& scales) const {
    std::vector<double> losses(scales.size(), INFINITY);
    for (size_t i : wanted) {
      losses[i] = 0;
      for (const Rows& w : weights) losses[i] += form.loss(w, unscaled(refined_trial(w, form, scales[i]), scales[i]));
    }
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
  std::vector<double> judged_by_module(const ScaleGroup& g, const QuadraticForm& form, const Scales& scales,
                                       const std::vector<size_t>& chosen) const {
    const ModuleLoss loss(g, w_, block_, calibration_, context_, Products::fastest);
    std::vector<double> losses(scales.size(), INFINITY);
    for (size_t i : chosen) losses[i] = loss.of([&](Param p) { return tried(form, p, scales[i]); });
    return losses;
  }

  Rows tried(const QuadraticForm& form, Param p, std::span<const float> s) const {
    const Rows w = rows_of(w_, p);
    return refinement_ ? unscaled(refined_trial(w, form, s), s) : effective(w, s, spec_);
  }

  QMatrix refined_trial(const Rows& w, const QuadraticForm& form, std::span<const float> s) const {
    const Rows ws = scaled(w, s);
    QMatrix q = quantize(pieces_of(ws), spec_, host_.pool);
    Refinement few = *refinement_;
    few.rounds = 1;
    begin(context_.costs.search, refine_operations(w, few));
    refine(form, ws, s, few, q);
    return q;
  }

  void round_consumers(const ScaleGroup& g, std::span<const float> s) {
    const std::optional<Compensation> compensation = compensation_of(g, s);
    const Timed timed(context_.costs.clip);
    const QuadraticForm form(host_, gram(g));
    for (Param p : g.consumers) {
      const Rows w = rows_of(w_, p);
      begin(context_.costs.clip, 2 * QuadraticForm::operations(w));
      round(p, w, gram(g), form, s, compensation);
    }
  }

  std::optional<Compensation> compensation_of(const ScaleGroup& g, std::span<const float> s) const {
    if (!refinement_) return {};
    const Timed timed(context_.costs.clip);
    begin(context_.costs.clip, Compensation::operations(gram(g).channels()));
    return Compensation(host_, gram(g), s, refinement_->damping);
  }

  // Ranges were judged group by group; the whole rows have the last word.
  void round(Param p, const Rows& w, const Gram& gram, const QuadraticForm& form, std::span<const float> s,
             const std::optional<Compensation>& compensation) {
    int64_t tried = 0;
    std::vector<Range> ranges = best_ranges(host_, w, gram, spec_, s, {}, &tried);
    const auto g = double(group_size(w.cols));
    begin(context_.costs.clip, double(tried) * 2 * g * g);
    const std::vector<float> ones(s.size(), 1.f);
    QMatrix q = quantize(pieces_of(w), spec_, host_.pool, ranges);
    const double plain_loss = form.loss(w, effective(w, ones, spec_), s);
    if (compensation) {
      begin(context_.costs.clip, QuadraticForm::operations(w) + refine_operations(w, *refinement_));
      compensation->round(host_, w, q);
      refine(form, w, s, *refinement_, q);
    }
    double loss = form.loss(w, rows_of(q), s), clipped = share_cut(w, ranges);
    if (!(loss < plain_loss)) {
      q = quantize(pieces_of(w), spec_, host_.pool);
      loss = plain_loss, clipped = 0;
      ranges.clear();
    }
    const auto [energy, rounding] = before_.at(p);
    // Scaled columns leave outputs, and so their energy, as they were; divided rows do not.
    const auto f = w_.factors.find(p);
    const bool divided = f != w_.factors.end() && !f->second.rows.empty();
    const double own = divided ? form.energy(w, s) : energy;
    solution_.layers.push_back({.param = p,
                                .error = relative(loss, own),
                                .rounding_error = relative(rounding, energy),
                                .clipped = clipped,
                                .ranges = std::move(ranges)});
    solution_.matrices[p] = std::move(q);
  }

  const std::optional<Refinement>& refinement_;
  BlockWeights& w_;
  const Block& block_;
  const BlockCalibration& calibration_;
  const QuantSpec& spec_;
  const Host& host_;
  const SolveContext& context_;
  std::map<Param, Before> before_;
  Solution solution_;
};

class Awq final : public Method {
 public:
  explicit Awq(const std::optional<Refinement>& refinement) : refinement_(refinement) {}
  bool needs_calibration() const override { return true; }
  bool folds() const override { return true; }
  bool weighs_tokens() const override { return refinement_.has_value(); }
  int64_t extra_bytes(int64_t cols) const override {
    return refinement_ ? Compensation::bytes_for(cols) + refine_bytes(cols) : 0;
  }
  Solution solve(BlockWeights& w, const Block& block, const BlockCalibration& calibration,
                 const SolveContext& context) const override {
    return Solver(refinement_, w, block, calibration, context).run();
  }

 private:
  std::optional<Refinement> refinement_;
};

}  // namespace

std::unique_ptr<Method> make_awq(const std::optional<Refinement>& refinement) {
  return std::make_unique<Awq>(refinement);
}

}  // namespace awq
