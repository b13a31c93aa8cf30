#include "quantizer/tile_form.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/numeric.h"

namespace awq {
namespace {

using kernels::kPanel;

constexpr int64_t kTileFormRows = 128;  // of e, a job
constexpr int64_t kPanels = 16;         // at once: their sums of 128 rows are 128 kB

}  // namespace

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
  std::vector<double> part(size_t((rows + kTileFormRows - 1) / kTileFormRows));
  host_.pool.each(int64_t(part.size()), [&](int64_t i) {
    const int64_t first = i * kTileFormRows, m = std::min(kTileFormRows, rows - first);
    std::vector<float> e(size_t(m * channels_));
    errors(first, m, e.data());
    part[size_t(i)] = of(e.data(), m);
  });
  return std::accumulate(part.begin(), part.end(), 0.0);
}

double TileForm::of(const float* e, int64_t m) const {
  const kernels::KernelSet& k = host_.kernels;
  const int64_t room = (m + k.token_block - 1) / k.token_block * k.token_block;
  Tensor rows = Tensor::empty({room, channels_}, DType::bf16);
  const kernels::ActBf16 view{reinterpret_cast<uint16_t*>(rows.data()), int32_t(m), int32_t(channels_), false};
  k.split_bf16(e, view, 0, int32_t(m));
  const auto* panels = reinterpret_cast<const uint16_t*>(panels_.data());
  std::vector<float> y(size_t(m * kPanels * kPanel));
  double sum = 0;
  for (int64_t p = 0; p < channels_ / kPanel; p += kPanels) {
    const int64_t count = std::min(kPanels, channels_ / kPanel - p), n = count * kPanel;
    k.tiles_bf16(panels + p * channels_ * kPanel, int32_t(n), view, y.data(), n, 0, int32_t(count));
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

}  // namespace awq
