// Scales and ranges from a file in place of a search.
#include "quantizer/search_source.h"

namespace awq {
namespace {

class Replay final : public Method {
 public:
  explicit Replay(std::shared_ptr<const SearchSource> source) : source_(std::move(source)) {}
  bool needs_calibration() const override { return false; }

  Solution solve(BlockWeights& w, const Block&, const BlockCalibration&, const QuantSpec& spec, Backend&,
                 const Host& host) const override {
    const BlockSearch found = source_->block(w.index);
    Solution s;
    for (const ScaleGroup& g : scale_groups(w.spec))
      for (Param p : g.consumers) {
        s.layers.push_back({.param = p});
        s.matrices[p];  // the map's shape is fixed before threads fill it
      }
    host.pool.each(int64_t(s.layers.size()), [&](int64_t i) {
      const Tensor& original = w.tensor(s.layers[size_t(i)].param);
      s.layers[size_t(i)].rounding_error = weight_error(original, dequantize(quantize(original, spec)));
    });
    for (const ScaleGroup& g : scale_groups(w.spec))
      if (const auto it = g.producer ? found.scales.find(*g.producer) : found.scales.end(); it != found.scales.end())
        scale(g, it->second, w, s);
    const bool fit = ranges_fit(*source_, spec);
    host.pool.each(int64_t(s.layers.size()), [&](int64_t i) {
      LayerResult& layer = s.layers[size_t(i)];
      const auto it = found.ranges.find(layer.param);
      round(w.tensor(layer.param), spec, fit && it != found.ranges.end() ? &it->second : nullptr, layer,
            s.matrices.at(layer.param));
    });
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

  static void round(const Tensor& w, const QuantSpec& spec, const FoundRanges* found, LayerResult& layer,
                    QMatrix& out) {
    const int64_t g = spec.group_size, cols = w.shape()[1];
    std::vector<Range> ranges;
    size_t cut = 0;
    for (int64_t i = 0; found && i < w.shape()[0] * cols; i += g) {
      const Range whole = range_of(w.as<float>().subspan(size_t(i), size_t(g))),
                  bounded = bound(*found, i / cols, cols, i % cols, i % cols + g);
      ranges.push_back({std::max(whole.low, bounded.low), std::min(whole.high, bounded.high)});
      cut += ranges.back() != whole;
    }
    out = quantize(w, spec, ranges);
    layer.error = weight_error(w, dequantize(out));
    layer.clipped = ranges.empty() ? 0 : double(cut) / double(ranges.size());
  }

  std::shared_ptr<const SearchSource> source_;
};

}  // namespace

bool ranges_fit(const SearchSource& source, const QuantSpec& spec) {
  return source.bits() == 0 || source.bits() == spec.bits;
}

std::unique_ptr<Method> make_replay(std::shared_ptr<const SearchSource> source) {
  return std::make_unique<Replay>(std::move(source));
}

}  // namespace awq
