// Scales and ranges from a file in place of a search.
#include "quantizer/search_source.h"

namespace awq {
namespace {

class Replay final : public Method {
 public:
  explicit Replay(std::shared_ptr<const SearchSource> source) : source_(std::move(source)) {}
  bool needs_calibration() const override { return false; }
  bool folds() const override { return true; }

  Solution solve(BlockWeights& w, const Block&, const BlockCalibration&, const SolveContext& c) const override {
    const Timed timed(c.costs.search);
    const BlockSearch found = source_->block(w.index);
    Solution s;
    for (const ScaleGroup& g : scale_groups(w.spec))
      for (Param p : g.consumers) {
        const Rows rows = rows_of(w, p);
        const QMatrix rounded = quantize(pieces_of(rows), c.spec, c.host.pool);
        s.layers.push_back({.param = p, .rounding_error = weight_error(c.host, rows, rounded), .ranges = {}});
      }
    for (const ScaleGroup& g : scale_groups(w.spec))
      if (const auto it = g.producer ? found.scales.find(*g.producer) : found.scales.end(); it != found.scales.end())
        scale(g, it->second, w, s);
    const bool fit = ranges_fit(*source_, c.spec);
    for (LayerResult& layer : s.layers) {
      const auto it = found.ranges.find(layer.param);
      const FoundRanges* ranges = fit && it != found.ranges.end() ? &it->second : nullptr;
      s.matrices[layer.param] = rounded(rows_of(w, layer.param), ranges, c, layer);
    }
    return s;
  }

 private:
  static void scale(const ScaleGroup& g, const FoundScales& found, BlockWeights& w, Solution& s) {
    fold(w, g, found.scales);
    const auto [low, high] = std::minmax_element(found.scales.begin(), found.scales.end());
    s.groups.push_back({g, found.chosen, 0, 0, *low, *high, found.scales});
  }

  /// What a group of columns [begin, end) of a row was cut to, in groups of any size: the union of those it lies in.
  static Range bound(const FoundRanges& found, int64_t row, int64_t cols, int64_t begin, int64_t end) {
    const int64_t g = found.group_size, groups = cols / g;
    Range all;
    for (int64_t i = begin / g; i * g < end; ++i) {
      const Range r = found.ranges[size_t(row * groups + i)];
      all = {std::min(all.low, r.low), std::max(all.high, r.high)};
    }
    return all;
  }

  static QMatrix rounded(const Rows& w, const FoundRanges* found, const SolveContext& c, LayerResult& layer) {
    if (found) layer.ranges = bounded(w, *found, c.spec.of_width(w.cols).group_size, layer.clipped);
    QMatrix q = quantize(pieces_of(w), c.spec, c.host.pool, layer.ranges);
    layer.error = weight_error(c.host, w, q);
    return q;
  }

  static std::vector<Range> bounded(const Rows& w, const FoundRanges& found, int64_t g, double& clipped) {
    std::vector<Range> ranges;
    std::vector<float> row(size_t(w.cols));
    size_t cut = 0;
    for (int64_t r = 0; r < w.rows; ++r) {
      w.read(r, 1, row.data());
      for (int64_t c = 0; c < w.cols; c += g) {
        const Range whole = range_of(std::span(row).subspan(size_t(c), size_t(g))),
                    limit = bound(found, r, w.cols, c, c + g);
        ranges.push_back({std::max(whole.low, limit.low), std::min(whole.high, limit.high)});
        cut += ranges.back() != whole;
      }
    }
    clipped = double(cut) / double(ranges.size());
    return ranges;
  }

  std::shared_ptr<const SearchSource> source_;
};

}  // namespace

bool ranges_fit(const SearchSource& source, const QuantSpec& spec) {
  return source.bits() == 0 || (source.bits() == spec.bits && source.symmetric() == spec.symmetric);
}

std::unique_ptr<Method> make_replay(std::shared_ptr<const SearchSource> source) {
  return std::make_unique<Replay>(std::move(source));
}

}  // namespace awq
