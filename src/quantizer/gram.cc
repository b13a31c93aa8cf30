#include "quantizer/gram.h"

#include <algorithm>
#include <vector>

#include "quantizer/tile_products.h"
#include "tensor/transpose.h"

namespace awq {
namespace {

using kernels::kPanel;

constexpr int64_t kTileRows = 192;  // of a tile at once: with the tile's inputs, 0.5 MB at 512 tokens

Tensor transposed(const Host& host, const Tensor& x) {
  const int64_t rows = x.shape()[0], cols = x.shape()[1];
  Tensor t = Tensor::empty({cols, rows}, DType::f32);
  host.pool.run((cols + kPanel - 1) / kPanel, 1, [&](int64_t begin, int64_t end) {
    const int64_t c = begin * kPanel;
    transpose(x.as<float>().data() + c, cols, rows, std::min(end * kPanel, cols) - c, t.as<float>().data() + c * rows,
              rows);
  });
  return t;
}

/// Columns [c, c + width) of x, [tokens][kTile].
std::vector<float> columns_of(const Tensor& x, int64_t c, int64_t width) {
  const int64_t tokens = x.shape()[0], cols = x.shape()[1];
  std::vector<float> some(size_t(tokens * Gram::kTile));
  for (int64_t t = 0; t < tokens; ++t)
    std::copy_n(x.as<float>().data() + t * cols + c, width, some.data() + t * Gram::kTile);
  return some;
}

}  // namespace

Gram::Gram(int64_t channels) : channels_(channels) {
  if (channels % kPanel)
    fail("calibrate", "a width of {} is no multiple of {}; no group size could divide it", channels, int(kPanel));
  values_ = Tensor::zeros({bytes_for(channels) / int64_t(sizeof(float))}, DType::f32);
}

int64_t Gram::bytes_for(int64_t channels) {
  const int64_t last = (channels + kTile - 1) / kTile - 1;
  return (offset(last) + channels * kTile) * int64_t(sizeof(float));
}

float Gram::at(int64_t i, int64_t j) const {
  if (i > j) std::swap(i, j);
  return tile(j / kTile)[i * kTile + j % kTile];
}

void Gram::add(const Host& host, const Tensor& x) {
  const Tensor xt = transposed(host, x);
  if (has_tiles(host) && x.shape()[0] % 32 == 0)
    return add_products(host, x, xt,
                        [&](int64_t i, int64_t j, const float* sums, int64_t n) { add_row(i, j, sums, n); });
  host.pool.each(tiles(), [&](int64_t i) { add_tile(host.kernels, xt, x, tiles() - 1 - i); });  // the largest first
}

void Gram::add_row(int64_t i, int64_t first, const float* sums, int64_t n) {
  for (int64_t t = std::max(first, i / kTile * kTile) / kTile; t * kTile < first + n; ++t) {
    const int64_t begin = std::max({first, t * kTile, i}), end = std::min(first + n, (t + 1) * kTile);
    float* row = values_.as<float>().data() + offset(t) + i * kTile - t * kTile;
    for (int64_t j = begin; j < end; ++j) row[j] += sums[j - first];
  }
}

void Gram::add_tile(const kernels::KernelSet& k, const Tensor& xt, const Tensor& x, int64_t tile) {
  const int64_t first = tile * kTile, n = width(tile), tokens = x.shape()[0];
  const std::vector<float> b = columns_of(x, first, n);
  std::vector<float> part(size_t(kTileRows * kTile));
  float* sum = values_.as<float>().data() + offset(tile);
  for (int64_t r = 0; r < rows(tile); r += kTileRows) {
    const int64_t m = std::min(kTileRows, rows(tile) - r);
    k.gemm_f32({.a = xt.as<float>().data() + r * tokens,
                .a_row = tokens,
                .b = b.data(),
                .b_panel = kPanel,
                .b_k = kTile,
                .c = part.data(),
                .c_row = kTile,
                .m = int32_t(m),
                .n = int32_t(n),
                .k = int32_t(tokens),
                .accumulate = false});
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = std::max<int64_t>(0, r + i - first); j < n; ++j)
        sum[(r + i) * kTile + j] += part[size_t(i * kTile + j)];
  }
}

}  // namespace awq
