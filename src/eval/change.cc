#include "eval/change.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace awq {
namespace {

/// With norms and biases of its own, which folding changes.
BlockWeights unshared(const BlockWeights& w) {
  BlockWeights mine = w;
  for (auto& [p, weight] : mine.at)
    if (const auto& t = std::get<Tensor>(weight); is_norm(p.role) && t) weight = t.clone();
  for (auto& [p, bias] : mine.bias) bias = bias.clone();
  return mine;
}

class ByMethod final : public Change {
 public:
  ByMethod(std::unique_ptr<Method> method, const QuantSpec& spec) : method_(std::move(method)), spec_(spec) {}
  Block changed(const FloatBlock& b) const override {
    BlockWeights w = unshared(b.w);
    BlockCosts costs;
    const Solution s = method_->solve(w, b.block, b.calibration, {spec_, b.dev, b.host, costs, {}});
    for (const auto& [p, q] : s.matrices) {
      w.at[p] = dequantize(q);
      w.factors.erase(p);  // codes have them
    }
    return upload(b.dev, w, DType::f32);
  }
  bool weighs_tokens() const override { return method_->weighs_tokens(); }

 private:
  std::unique_ptr<Method> method_;
  QuantSpec spec_;
};

class ByGroup final : public Change {
 public:
  explicit ByGroup(GroupChange linears) : linears_(std::move(linears)) {}
  Block changed(const FloatBlock& b) const override {
    Block block = b.block;
    for (const ScaleGroup& g : scale_groups(b.w.spec))
      for (auto& [p, linear] : linears_(b, g)) block.linear[p] = linear;
    return block;
  }

 private:
  GroupChange linears_;
};

Rows with_channels_of(const Rows& rounded, const Rows& w, const std::vector<int64_t>& kept) {
  return {w.rows, w.cols, [=](int64_t first, int64_t count, float* to) {
            std::vector<float> original(size_t(count * w.cols));
            w.read(first, count, original.data());
            rounded.read(first, count, to);
            for (int64_t r = 0; r < count; ++r)
              for (int64_t c : kept) to[r * w.cols + c] = original[size_t(r * w.cols + c)];
          }};
}

std::vector<float> column_norms(const Rows& w) {
  std::vector<double> squares(size_t(w.cols));
  std::vector<float> row(squares.size()), norms;
  for (int64_t r = 0; r < w.rows; ++r) {
    w.read(r, 1, row.data());
    for (size_t c = 0; c < row.size(); ++c) squares[c] += double(row[c]) * double(row[c]);
  }
  for (double s : squares) norms.push_back(float(std::sqrt(s)));
  return norms;
}

// Seeded by the layer, so that a study repeats.
std::vector<float> random_order(const FloatBlock& b, Param p, int64_t channels) {
  std::mt19937 random(uint32_t(b.w.index * 64 + int(p.role)));
  std::vector<float> v;
  for (int64_t c = 0; c < channels; ++c) v.push_back(float(random()));
  return v;
}

}  // namespace

std::unique_ptr<Change> by_method(std::unique_ptr<Method> method, const QuantSpec& spec) {
  return std::make_unique<ByMethod>(std::move(method), spec);
}

std::unique_ptr<Change> by_group(GroupChange linears) { return std::make_unique<ByGroup>(std::move(linears)); }

std::unique_ptr<Change> by_matrix(MatrixChange weights) {
  return by_group([weights = std::move(weights)](const FloatBlock& b, const ScaleGroup& g) {
    std::map<Param, std::shared_ptr<const Linear>> linears;
    for (Param p : g.consumers) linears[p] = linear_of(b, p, weights(b, g, p));
    return linears;
  });
}

std::unique_ptr<Linear> linear_of(const FloatBlock& b, Param p, const Rows& w) {
  const auto bias = b.w.bias.find(p);
  return b.dev.linear(pieces_of(w), bias == b.w.bias.end() ? nullptr : &bias->second);
}

std::vector<float> candidate_scales(const FloatBlock& b, const ScaleGroup& g, Candidate candidate, int group_size) {
  std::vector<float> m = b.site(g).mean_abs();
  if (!g.producer) return std::vector<float>(m.size(), 1.f);
  std::vector<Rows> weights;
  for (Param p : g.consumers) weights.push_back(rows_of(b.w, p));
  std::vector<float> wm = weight_mean(b.host, weights, group_size);
  if (g.tied_heads > 1) m = tied(m, g.tied_heads, g.head_dim), wm = tied(wm, g.tied_heads, g.head_dim);
  return scales_of(candidate, m, wm);
}

std::vector<int64_t> salient_channels(const FloatBlock& b, const ScaleGroup& g, Param p, Salience by, double share) {
  const Rows w = rows_of(b.w, p);
  const std::vector<float> v = by == Salience::activation    ? b.site(g).mean_abs()
                               : by == Salience::weight_norm ? column_norms(w)
                                                             : random_order(b, p, w.cols);
  std::vector<int64_t> order(v.size());
  for (size_t c = 0; c < order.size(); ++c) order[c] = int64_t(c);
  std::ranges::stable_sort(order, [&](int64_t i, int64_t j) { return v[size_t(i)] > v[size_t(j)]; });
  order.resize(size_t(std::max(1.0, std::round(share * double(v.size())))));
  return order;
}

std::unique_ptr<Change> keeping_salient(const QuantSpec& spec, Salience by, double share) {
  return by_matrix([=](const FloatBlock& b, const ScaleGroup& g, Param p) {
    const Rows w = rows_of(b.w, p);
    const auto rounded = Rows(dequantize(quantize(pieces_of(w), spec, b.host.pool)));
    return share > 0 ? with_channels_of(rounded, w, salient_channels(b, g, p, by, share)) : rounded;
  });
}

std::unique_ptr<Change> scaling_salient(const QuantSpec& spec, double share, float factor) {
  return by_matrix([=](const FloatBlock& b, const ScaleGroup& g, Param p) {
    std::vector<float> s(size_t(b.w.spec.shape(p).second), 1.f);
    for (int64_t c : salient_channels(b, g, p, Salience::activation, share)) s[size_t(c)] = factor;
    return Rows(whole(pieces_of(effective(rows_of(b.w, p), s, spec)), b.host.pool));
  });
}

std::unique_ptr<Change> scaling_by(const QuantSpec& spec, Candidate candidate) {
  return by_matrix([=](const FloatBlock& b, const ScaleGroup& g, Param p) {
    const Rows w = rows_of(b.w, p);
    const std::vector<float> s = candidate_scales(b, g, candidate, spec.of_width(w.cols).group_size);
    return Rows(whole(pieces_of(effective(w, s, spec)), b.host.pool));
  });
}

std::unique_ptr<Change> clipping(const QuantSpec& spec, Candidate candidate, RangeSteps steps) {
  return by_matrix([=](const FloatBlock& b, const ScaleGroup& g, Param p) {
    const Rows w = rows_of(b.w, p);
    const std::vector<float> s = candidate_scales(b, g, candidate, spec.of_width(w.cols).group_size);
    const Rows ws = scaled(w, s);
    const std::vector<Range> ranges = best_ranges(b.host, ws, b.site(g).gram, spec, s, steps);
    const QMatrix q = quantize(pieces_of(ws), spec, b.host.pool, ranges);
    return Rows(whole(pieces_of(unscaled(q, s)), b.host.pool));
  });
}

}  // namespace awq
