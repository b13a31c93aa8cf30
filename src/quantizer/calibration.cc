#include "quantizer/calibration.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace awq {
namespace {

using kernels::kPanel;

constexpr int64_t kGramRows = 48;  // of the triangle, a job

Tensor transposed(const Host& host, const Tensor& x) {
  const int64_t rows = x.shape()[0], cols = x.shape()[1];
  Tensor t = Tensor::empty({cols, rows}, DType::f32);
  const float* in = x.as<float>().data();
  float* out = t.as<float>().data();
  host.pool.run((cols + 15) / 16, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = begin * 16; c < std::min(end * 16, cols); ++c) out[c * rows + r] = in[r * cols + c];
  });
  return t;
}

// Rows [r, r + m) of the triangle. The chunk's products are summed apart and then added, so that rounding grows with
// the chunk and the number of chunks, not with their product.
void gram_rows(const kernels::KernelSet& k, const Tensor& xt, const Tensor& x, int64_t r, int64_t m, Tensor& gram) {
  const int64_t cols = x.shape()[1], tokens = x.shape()[0], n = cols - r;
  std::vector<float> part(size_t(m * n));
  k.gemm_f32({.a = xt.as<float>().data() + r * tokens,
              .a_row = tokens,
              .b = x.as<float>().data() + r,
              .b_panel = kPanel,
              .b_k = cols,
              .c = part.data(),
              .c_row = n,
              .m = int32_t(m),
              .n = int32_t(n),
              .k = int32_t(tokens),
              .accumulate = false});
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = i; j < n; ++j) gram.as<float>()[size_t((r + i) * cols + r + j)] += part[size_t(i * n + j)];
}

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

void add_gram(const Host& host, const Tensor& x, Tensor& gram) {
  const int64_t cols = x.shape()[1];
  if (cols % kPanel)
    fail("calibrate", "a width of {} is no multiple of {}; no group size could divide it", cols, int(kPanel));
  const Tensor xt = transposed(host, x);
  host.pool.each((cols + kGramRows - 1) / kGramRows, [&](int64_t i) {
    gram_rows(host.kernels, xt, x, i * kGramRows, std::min(kGramRows, cols - i * kGramRows), gram);
  });
}

BlockCalibration calibrate(Backend& dev, const Host& host, const Block& block, int index, Tensor& hidden, int length,
                           const CalibrationOptions& options) {
  const int64_t total = hidden.shape()[0], chunk = std::max<int64_t>(1, 2048 / length) * length;
  const std::vector<int64_t> counted_rows = sampled(total, 1, total, options.counted),
                             sequences = sampled(total, length, options.sample_sequences, options.counted),
                             rows = sampled(total, 1, options.sample_rows, options.counted);
  BlockCalibration result{.sites = {},
                          .sample_sequences = int(int64_t(sequences.size()) / length),
                          .sequence_tokens = length,
                          .sample_counted = counted_of(sequences, options.counted)};
  for (int64_t begin = 0; begin < total; begin += chunk) {
    const int64_t end = std::min(begin + chunk, total);
    const std::vector<int64_t> here = within(counted_rows, begin, end);
    const auto tap = [&](Site site, const Tensor& all) {
      SiteStatistics& s = result.sites[site];
      if (!s.gram) {
        const int64_t channels = all.shape()[1];
        s.gram = Tensor::zeros({channels, channels}, DType::f32);
        s.sum_abs.assign(size_t(channels), 0);
      }
      if (site.role == Role::q) s.sample = appended(s.sample, all, within(sequences, begin, end));
      if (site.role == Role::gate) s.sample = appended(s.sample, all, within(rows, begin, end));
      const Tensor x = int64_t(here.size()) == end - begin ? all : appended({}, all, here);
      s.tokens += x.shape()[0];
      add_abs(host, x, s.sum_abs);
      require_finite(s.sum_abs, index, site);
      if (!here.empty()) add_gram(host, x, s.gram);
    };
    std::vector<std::unique_ptr<KvCache>> caches;
    std::vector<Sequence> batch;
    for (int64_t t = begin; t < end; t += length) {
      caches.push_back(dev.kv_cache({&block.spec, 1}));
      batch.push_back({caches.back().get(), 0, length});
    }
    Tensor x = hidden.rows(begin, end);
    block_forward(dev, block, batch, 0, x, tap);
  }
  return result;
}

}  // namespace awq
