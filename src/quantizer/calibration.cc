#include "quantizer/calibration.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace awq {
namespace {

void add_abs(const Host& host, const Tensor& x, std::vector<double>& sum) {
  const int64_t rows = x.shape()[0], cols = x.shape()[1];
  const float* in = x.as<float>().data();
  host.pool.run((cols + 63) / 64, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = begin * 64; c < std::min(end * 64, cols); ++c)
        sum[size_t(c)] += std::abs(double(in[r * cols + c]));
  });
}

void require_finite(const std::vector<double>& sum_abs, int block, Site site) {
  for (size_t c = 0; c < sum_abs.size(); ++c)
    if (!std::isfinite(sum_abs[c]))
      fail("calibrate",
           "block {}: an activation at the input of {} (channel {}) is not finite, though all weights are. Some are so "
           "large that sums "
           "overflow: the model is damaged or was converted wrongly",
           block, name_of(site.role), c);
}

// Rows of this chunk that belong to the sample: whole sequences at q, every step-th row elsewhere.
struct Sampler {
  int64_t total, wanted, length;
  bool sequences;
  std::vector<int64_t> rows(int64_t begin, int64_t end) const {
    std::vector<int64_t> r;
    const int64_t unit = sequences ? length : 1, units = total / unit, keep = std::min(wanted, units);
    for (int64_t i = 0; i < keep; ++i) {
      const int64_t first = i * units / keep * unit;
      for (int64_t t = std::max(first, begin); t < std::min(first + unit, end); ++t) r.push_back(t - begin);
    }
    return r;
  }
};

Tensor appended(const Tensor& sample, const Tensor& x, const std::vector<int64_t>& rows) {
  const int64_t have = sample ? sample.shape()[0] : 0, cols = x.shape()[1];
  Tensor out = Tensor::empty({have + int64_t(rows.size()), cols}, DType::f32);
  if (have) std::memcpy(out.data(), sample.data(), sample.bytes());
  for (size_t i = 0; i < rows.size(); ++i)
    std::memcpy(out.as<float>().data() + (have + int64_t(i)) * cols, x.as<float>().data() + rows[i] * cols,
                size_t(cols) * sizeof(float));
  return out;
}

}  // namespace

std::vector<float> SiteStatistics::mean_abs() const {
  std::vector<float> m;
  for (double s : sum_abs) m.push_back(float(s / double(tokens)));
  return m;
}

int64_t tokens_at_once(int length) { return std::max<int64_t>(1, 512 / length) * length; }

namespace {

/// What one block's sites have seen so far.
class Observer {
 public:
  Observer(const Host& host, int index, const HiddenStates& hidden, const CalibrationOptions& options,
           BlockCosts& costs)
      : host_(host), index_(index), hidden_(hidden), options_(options), costs_(costs) {}

  /// The inputs of tokens [begin, ...) at a site.
  void see(Site site, const Tensor& x, int64_t begin) {
    const Timed timed(costs_.gram, Gram::operations(x.shape()[0], x.shape()[1]));
    SiteStatistics& s = sites_[site];
    if (!s.gram) {
      s.gram = Gram(x.shape()[1]);
      s.sum_abs.assign(size_t(x.shape()[1]), 0);
    }
    s.tokens += x.shape()[0];
    add_abs(host_, x, s.sum_abs);
    require_finite(s.sum_abs, index_, site);
    s.gram.add(host_, x);
    sample(site, x, begin, s);
  }
  BlockCalibration finish() {
    const int64_t rows = sites_.at({Role::q}).sample.shape()[0];
    return {std::move(sites_), int(rows / hidden_.length), hidden_.length};
  }

 private:
  void sample(Site site, const Tensor& x, int64_t begin, SiteStatistics& s) const {
    const bool whole = site.role == Role::q;
    if (!whole && site.role != Role::gate) return;
    const Sampler sampler{hidden_.tokens, whole ? options_.sample_sequences : options_.sample_rows, hidden_.length,
                          whole};
    s.sample = appended(s.sample, x, sampler.rows(begin, begin + x.shape()[0]));
  }

  const Host& host_;
  int index_;
  const HiddenStates& hidden_;
  const CalibrationOptions& options_;
  BlockCosts& costs_;
  std::map<Site, SiteStatistics> sites_;
};

void forward(Backend& dev, const Block& block, int length, Tensor& x, const Tap& tap) {
  std::vector<std::unique_ptr<KvCache>> caches;
  std::vector<Sequence> batch;
  for (int64_t t = 0; t < x.shape()[0]; t += length) {
    caches.push_back(dev.kv_cache({&block.spec, 1}));
    batch.push_back({caches.back().get(), 0, length});
  }
  block_forward(dev, block, batch, 0, x, tap);
}

}  // namespace

BlockCalibration calibrate(Backend& dev, const Host& host, const Block& block, int index, const HiddenStates& hidden,
                           const CalibrationOptions& options, BlockCosts& costs,
                           const std::function<void(int64_t)>& progress) {
  Observer observer(host, index, hidden, options, costs);
  for (int64_t begin = 0; begin < hidden.tokens; begin += tokens_at_once(hidden.length)) {
    const int64_t end = std::min(begin + tokens_at_once(hidden.length), hidden.tokens);
    if (progress) progress(begin);
    Tensor x = hidden.read(begin, end);
    {
      const Timed timed(costs.forward, block_operations(block.spec, end - begin), &costs.gram);
      forward(dev, block, hidden.length, x, [&](Site site, const Tensor& seen) { observer.see(site, seen, begin); });
    }
    if (hidden.write) hidden.write(begin, x);
  }
  return observer.finish();
}

}  // namespace awq
