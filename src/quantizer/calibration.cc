#include "quantizer/calibration.h"

#include <algorithm>
#include <cmath>

#include "model/stream.h"

namespace awq {
namespace {

constexpr int64_t kRows = 64, kColumns = 64;

/// Of a few rows in f32, whose sum is then exact to 2^-18.
void add_abs(const float* x, int64_t step, int64_t rows, int64_t cols, double* sum, float* largest) {
  float part[kColumns] = {}, most[kColumns] = {};
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) {
      const float v = std::abs(x[r * step + c]);
      part[c] += v;
      most[c] = std::max(most[c], v);
    }
  for (int64_t c = 0; c < cols; ++c) {
    sum[c] += double(part[c]);
    largest[c] = std::max(largest[c], most[c]);
  }
}

void add_abs(const Host& host, const Tensor& x, std::vector<double>& sum, std::vector<float>& largest) {
  const int64_t rows = x.shape()[0], cols = x.shape()[1];
  const float* in = x.as<float>().data();
  host.pool.each((cols + kColumns - 1) / kColumns, [&](int64_t i) {
    const int64_t c = i * kColumns, n = std::min(kColumns, cols - c);
    for (int64_t r = 0; r < rows; r += kRows)
      add_abs(in + r * cols + c, cols, std::min(kRows, rows - r), n, &sum[size_t(c)], &largest[size_t(c)]);
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

// Rows of the sample: `wanted` units of consecutive rows (whole sequences, or single rows), evenly spread over those
// that have a row that counts.
std::vector<int64_t> sampled(int64_t total, int64_t unit, int64_t wanted, std::span<const uint8_t> counted) {
  std::vector<int64_t> units, rows;
  for (int64_t first = 0; first < total; first += unit) {
    const auto part = counted.empty() ? counted : counted.subspan(size_t(first), size_t(unit));
    if (part.empty() || std::ranges::count(part, 0) < unit) units.push_back(first);
  }
  const auto n = int64_t(units.size()), keep = std::min(wanted, n);
  for (int64_t i = 0; i < keep; ++i)
    for (int64_t r = 0; r < unit; ++r) rows.push_back(units[size_t(i * n / keep)] + r);
  return rows;
}

// Those of [begin, end), from its beginning.
std::vector<int64_t> within(const std::vector<int64_t>& rows, int64_t begin, int64_t end) {
  std::vector<int64_t> some;
  for (int64_t r : rows)
    if (r >= begin && r < end) some.push_back(r - begin);
  return some;
}

std::vector<uint8_t> counted_of(const std::vector<int64_t>& rows, std::span<const uint8_t> counted) {
  std::vector<uint8_t> some;
  if (!counted.empty())
    for (int64_t r : rows) some.push_back(counted[size_t(r)]);
  return some;
}

/// To `to`, in that order.
void gather(const Tensor& x, const std::vector<int64_t>& rows, float* to) {
  const int64_t cols = x.shape()[1];
  for (int64_t r : rows) to = std::copy_n(x.as<float>().data() + r * cols, cols, to);
}

Tensor of_rows(const Tensor& x, const std::vector<int64_t>& rows) {
  Tensor out = Tensor::empty({int64_t(rows.size()), x.shape()[1]}, DType::f32);
  gather(x, rows, out.as<float>().data());
  return out;
}

/// Rows so that each one's products with itself are `weights` times as large.
Tensor weighted(const Tensor& x, std::span<const float> weights) {
  Tensor y = x.clone();
  const auto cols = size_t(x.shape()[1]);
  for (size_t r = 0; r < weights.size(); ++r) {
    const float by = std::sqrt(weights[r]);
    for (float& v : y.as<float>().subspan(r * cols, cols)) v *= by;
  }
  return y;
}

/// Puts what x, which begins at row `begin` of all, has of `rows` of all into its place in the sample of them.
void keep(const std::vector<int64_t>& rows, const Tensor& x, int64_t begin, Tensor& sample) {
  const int64_t cols = x.shape()[1];
  if (!sample) sample = Tensor::empty({int64_t(rows.size()), cols}, DType::f32);
  const auto before = std::ranges::lower_bound(rows, begin) - rows.begin();
  gather(x, within(rows, begin, begin + x.shape()[0]), sample.as<float>().data() + before * cols);
}

}  // namespace

std::vector<float> SiteStatistics::mean_abs() const {
  std::vector<float> m;
  for (double s : sum_abs) m.push_back(float(s / double(tokens)));
  return m;
}

void require_finite_input(const Host& host, const Tensor& x, int block, Site site) {
  std::vector<double> sums(size_t(x.shape()[1]));
  std::vector<float> largest(sums.size());
  add_abs(host, x, sums, largest);
  require_finite(sums, block, site);
}

int64_t tokens_at_once(int length) { return std::max<int64_t>(1, 512 / length) * length; }

namespace {

/// What one block's sites have seen so far.
class Observer {
 public:
  Observer(const Host& host, const BlockSpec& spec, int index, const HiddenStates& hidden, const CalibrationOptions& o,
           BlockCosts& costs)
      : host_(host),
        attention_(attention_input(spec)),
        index_(index),
        length_(hidden.length),
        costs_(costs),
        counted_(o.counted),
        weights_(hidden.weights),
        rows_(sampled(hidden.tokens, 1, hidden.tokens, o.counted)),
        sequences_(sampled(hidden.tokens, hidden.length, o.sample_sequences, o.counted)),
        sample_rows_(sampled(hidden.tokens, 1, o.sample_rows, o.counted)) {}

  /// The inputs of tokens [begin, ...) at a site, or of those of them that `rows` names.
  void see(Site site, const Tensor& all, std::span<const int32_t> rows, int64_t begin) {
    const int64_t n = all.shape()[0];
    const std::vector<int64_t> here = rows.empty() ? within(rows_, begin, begin + n) : counting(rows, begin);
    SiteStatistics& s = sites_[site];
    if (site == attention_) keep(sequences_, all, begin, s.sample);
    if (site.role == Role::gate) keep(sample_rows_, all, begin, s.sample);
    add(site, int64_t(here.size()) == n ? all : of_rows(all, here), weights_at(site, here, begin));
  }
  /// Of experts that too few tokens went to.
  void force(Backend& dev, const Block& block, int64_t enough) {
    const Tensor sample = sites_.at({Role::gate}).sample;
    const int64_t n = sample.shape()[0];
    for (int e : block.spec.mlps()) {
      SiteStatistics& s = sites_[{Role::down, e}];
      if (s.tokens >= std::min(enough, n)) continue;
      Tensor y = dev.empty(sample.shape());
      expert_forward(dev, block, e, sample, y, n, [&](Site site, const Tensor& x, auto) { add(site, x); });
      s.forced = n;
    }
  }
  BlockCalibration finish() {
    return {.sites = std::move(sites_),
            .sample_sequences = int(int64_t(sequences_.size()) / length_),
            .sequence_tokens = length_,
            .sample_counted = counted_of(sequences_, counted_)};
  }

 private:
  std::vector<int64_t> counting(std::span<const int32_t> rows, int64_t begin) const {
    std::vector<int64_t> some;
    for (size_t i = 0; i < rows.size(); ++i)
      if (counted_.empty() || counted_[size_t(begin + rows[i])]) some.push_back(int64_t(i));
    return some;
  }
  /// Of rows `here` of those from `begin` on.
  std::vector<float> weights_at(Site site, const std::vector<int64_t>& here, int64_t begin) const {
    std::vector<float> some;
    if (const auto w = weights_.find(site); w != weights_.end())
      for (int64_t r : here) some.push_back(w->second[size_t(begin + r)]);
    return some;
  }
  void add(Site site, const Tensor& x, std::span<const float> weights = {}) {
    const Timed timed(costs_.gram, Gram::operations(x.shape()[0], x.shape()[1]));
    SiteStatistics& s = sites_[site];
    if (!s.gram) {
      s.gram = Gram(x.shape()[1]);
      s.sum_abs.assign(size_t(x.shape()[1]), 0);
      s.max_abs.assign(s.sum_abs.size(), 0);
    }
    s.tokens += x.shape()[0];
    add_abs(host_, x, s.sum_abs, s.max_abs);
    require_finite(s.sum_abs, index_, site);
    if (x.shape()[0]) s.gram.add(host_, weights.empty() ? x : weighted(x, weights));
  }

  const Host& host_;
  Site attention_;
  int index_, length_;
  BlockCosts& costs_;
  std::span<const uint8_t> counted_;
  const std::map<Site, std::vector<float>>& weights_;
  std::vector<int64_t> rows_, sequences_, sample_rows_;  // that count; of the samples at the attention and at gate
  std::map<Site, SiteStatistics> sites_;
};

}  // namespace

void run_sequences(Backend& dev, const Block& block, int length, Tensor& x, const Tap& tap) {
  std::vector<std::unique_ptr<KvCache>> caches;
  std::vector<Sequence> batch;
  for (int64_t t = 0; t < x.shape()[0]; t += length) {
    caches.push_back(cache_alone(dev, block.spec));
    batch.push_back({caches.back().get(), 0, length});
  }
  stream_forward(dev, block, batch, x, tap);
}

HiddenStates in_memory(Tensor& x, int length) {
  return {.tokens = x.shape()[0],
          .length = length,
          .read = [&x](int64_t begin, int64_t end) { return x.rows(begin, end).clone(); },
          .write =
              [&x](int64_t begin, const Tensor& y) {
                std::ranges::copy(y.as<float>(), x.rows(begin, begin + y.shape()[0]).as<float>().begin());
              }};
}

BlockCalibration calibrate(Backend& dev, const Host& host, const Block& block, int index, const HiddenStates& hidden,
                           const CalibrationOptions& options, BlockCosts& costs,
                           const std::function<void(int64_t)>& progress) {
  Observer observer(host, block.spec, index, hidden, options, costs);
  for (int64_t begin = 0; begin < hidden.tokens; begin += tokens_at_once(hidden.length)) {
    const int64_t end = std::min(begin + tokens_at_once(hidden.length), hidden.tokens);
    if (progress) progress(begin);
    Tensor x = hidden.read(begin, end);
    {
      const Timed timed(costs.forward, block_operations(block.spec, end - begin), &costs.gram);
      run_sequences(dev, block, hidden.length, x,
                    [&](Site site, const Tensor& seen, auto rows) { observer.see(site, seen, rows, begin); });
    }
    if (hidden.write) hidden.write(begin, x);
  }
  if (block.spec.experts) observer.force(dev, block, options.expert_tokens);
  return observer.finish();
}

}  // namespace awq
