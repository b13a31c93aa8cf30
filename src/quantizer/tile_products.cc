#include "quantizer/tile_products.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/numeric.h"

namespace awq {
namespace {

using kernels::kPanel;

constexpr int64_t kFormRows = 128;     // of e, a job
constexpr int64_t kProductRows = 256;  // of x^T, a job
constexpr int64_t kPanels = 16;        // at once: their sums of 256 rows are 256 kB

/// Columns [16 * panel, ...) of x, as bfloat16 and what that leaves.
void split_columns(const Tensor& x, int64_t panel, uint16_t* high, uint16_t* low) {
  const int64_t tokens = x.shape()[0], cols = x.shape()[1];
  const float* from = x.as<float>().data() + panel * kPanel;
  for (int64_t t = 0; t < tokens; ++t, from += cols)
    for (int64_t i = 0; i < kPanel; ++i) {
      const uint16_t h = f32_to_bf16(from[i]);
      high[t * kPanel + i] = h;
      low[t * kPanel + i] = f32_to_bf16(from[i] - bf16_to_f32(h));
    }
}

}  // namespace

TileRows::TileRows(const kernels::KernelSet& k, const float* x, int64_t rows, int64_t cols, bool pairs)
    : k_(k),
      values_(Tensor::empty({(rows + k.token_block - 1) / k.token_block * k.token_block, cols * (pairs ? 2 : 1)},
                            DType::bf16)),
      view_{reinterpret_cast<uint16_t*>(values_.data()), int32_t(rows), int32_t(cols), pairs} {
  k.split_bf16(x, view_, 0, int32_t(rows));
}

void TileRows::times(const uint16_t* panels, int64_t count, float* y, int64_t y_row) const {
  k_.tiles_bf16(panels, int32_t(count * kPanel), view_, y, y_row, 0, int32_t(count));
}

TileForm::TileForm(const Host& host, const Gram& gram)
    : host_(host),
      channels_(gram.channels()),
      panels_(Tensor::empty({channels_ / kPanel, channels_, kPanel}, DType::bf16)) {
  auto* to = reinterpret_cast<uint16_t*>(panels_.data());
  host.pool.each(channels_ / kPanel, [&](int64_t p) {
    for (int64_t k = 0; k < channels_; ++k)
      for (int64_t i = 0; i < kPanel; ++i)
        to[(p * channels_ + k) * kPanel + i] = f32_to_bf16(gram.at(k, p * kPanel + i));
  });
}

double TileForm::total(int64_t rows, const std::function<void(int64_t, int64_t, float*)>& errors) const {
  std::vector<double> part(size_t((rows + kFormRows - 1) / kFormRows));
  host_.pool.each(int64_t(part.size()), [&](int64_t i) {
    const int64_t first = i * kFormRows, m = std::min(kFormRows, rows - first);
    std::vector<float> e(size_t(m * channels_));
    errors(first, m, e.data());
    part[size_t(i)] = of(e.data(), m);
  });
  return std::accumulate(part.begin(), part.end(), 0.0);
}

double TileForm::of(const float* e, int64_t m) const {
  const TileRows rows(host_.kernels, e, m, channels_, false);
  std::vector<float> y(size_t(m * kPanels * kPanel));
  double sum = 0;
  for (int64_t p = 0; p < channels_ / kPanel; p += kPanels) {
    const int64_t count = std::min(kPanels, channels_ / kPanel - p), n = count * kPanel;
    rows.times(reinterpret_cast<const uint16_t*>(panels_.data()) + p * channels_ * kPanel, count, y.data(), n);
    for (int64_t r = 0; r < m; ++r) {
      float lanes[kPanel] = {};
      for (int64_t c = 0; c < n; c += kPanel)
        for (int64_t i = 0; i < kPanel; ++i)
          lanes[i] += e[r * channels_ + p * kPanel + c + i] * y[size_t(r * n + c + i)];
      sum += std::accumulate(lanes, lanes + kPanel, 0.0);
    }
  }
  return sum;
}

void add_products(const Host& host, const Tensor& x, const Tensor& xt,
                  const std::function<void(int64_t, int64_t, const float*, int64_t)>& add) {
  const int64_t tokens = x.shape()[0], channels = x.shape()[1], panels = channels / kPanel;
  const Tensor high = Tensor::empty({panels, tokens, kPanel}, DType::bf16),
               low = Tensor::empty(high.shape(), DType::bf16);
  const auto at = [&](const Tensor& t, int64_t panel) {
    return reinterpret_cast<uint16_t*>(const_cast<std::byte*>(t.data())) + panel * tokens * kPanel;
  };
  host.pool.each(panels, [&](int64_t p) { split_columns(x, p, at(high, p), at(low, p)); });
  host.pool.each((channels + kProductRows - 1) / kProductRows, [&](int64_t band) {  // the largest first
    const int64_t first = band * kProductRows, m = std::min(kProductRows, channels - first);
    const TileRows rows(host.kernels, xt.as<float>().data() + first * tokens, m, tokens, true);
    std::vector<float> a(size_t(m * kPanels * kPanel)), b(a.size());
    for (int64_t p = first / kPanel; p < panels; p += kPanels) {
      const int64_t count = std::min(kPanels, panels - p), n = count * kPanel;
      rows.times(at(high, p), count, a.data(), n);
      rows.times(at(low, p), count, b.data(), n);
      for (int64_t i = 0; i < m * n; ++i) a[size_t(i)] += b[size_t(i)];
      for (int64_t i = 0; i < m; ++i) add(first + i, p * kPanel, a.data() + i * n, n);
    }
  });
}

}  // namespace awq
