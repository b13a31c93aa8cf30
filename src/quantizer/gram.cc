#include "quantizer/gram.h"

#include <algorithm>
#include <vector>

#include "base/numeric.h"
#include "model/cpu_tiles.h"
#include "tensor/transpose.h"

namespace awq {
namespace {

using kernels::kPanel;

constexpr int64_t kBlock = 128;  // channels whose products a job computes on tiles
constexpr int64_t kChunk = 256;  // with so many others at once: their sums are 128 kB
constexpr int64_t kTokens = 32;  // tiles multiply so many together

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

/// x in bfloat16 as [channels / 16][tokens, up to a multiple of kTokens with zeros][16].
Tensor panels_of(const Host& host, const Tensor& x) {
  const int64_t tokens = x.shape()[0], cols = x.shape()[1], room = (tokens + kTokens - 1) / kTokens * kTokens;
  Tensor panels = Tensor::empty({cols / kPanel, room, kPanel}, DType::bf16);
  host.pool.each(cols / kPanel, [&](int64_t p) {
    const float* from = x.as<float>().data() + p * kPanel;
    uint16_t* to = reinterpret_cast<uint16_t*>(panels.data()) + p * room * kPanel;
    for (int64_t t = 0; t < tokens; ++t, from += cols, to += kPanel)
      for (int64_t i = 0; i < kPanel; ++i) to[i] = number_to_bf16(from[i]);
    std::fill_n(to, (room - tokens) * kPanel, uint16_t(0));
  });
  return panels;
}

/// Channels [first, first + m) of x as rows of `room` tokens, zeros behind its own.
std::vector<float> rows_of(const Tensor& x, int64_t first, int64_t m, int64_t room) {
  const int64_t tokens = x.shape()[0], cols = x.shape()[1];
  std::vector<float> rows(size_t(m * room));
  transpose(x.as<float>().data() + first, cols, tokens, m, rows.data(), room);
  return rows;
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
  if (has_tiles(host.kernels)) return add_on_tiles(host, x);
  const Tensor xt = transposed(host, x);
  host.pool.each(tiles(), [&](int64_t i) { add_tile(host.kernels, xt, x, tiles() - 1 - i); });  // the largest first
}

void Gram::add_on_tiles(const Host& host, const Tensor& x) {
  const Tensor panels = panels_of(host, x);
  host.pool.each((channels_ + kBlock - 1) / kBlock, [&](int64_t i) { add_block(host.kernels, x, panels, i * kBlock); });
}

void Gram::add_block(const kernels::KernelSet& k, const Tensor& x, const Tensor& panels, int64_t first) {
  const int64_t m = std::min(kBlock, channels_ - first), tokens = panels.shape()[1];
  const std::vector<float> channels = rows_of(x, first, m, tokens);
  const TileRows rows(k, channels.data(), m, tokens);
  rows.prepare(0, int32_t(m));
  std::vector<float> part(size_t(m * kChunk));
  for (int64_t c = first; c < channels_; c += kChunk) {
    const int64_t n = std::min(kChunk, channels_ - c);
    k.tiles_bf16(reinterpret_cast<const uint16_t*>(panels.data()) + c * tokens, int32_t(n), rows.view, part.data(), n,
                 0, int32_t(n / kPanel), 0, int32_t(tokens));
    for (int64_t r = 0; r < m; ++r) add_row(first + r, c, {part.data() + r * n, size_t(n)});
  }
}

void Gram::add_row(int64_t row, int64_t col, std::span<const float> products) {
  const int64_t end = col + int64_t(products.size());
  for (int64_t begin = std::max(row, col); begin < end;) {
    const int64_t t = begin / kTile, last = std::min(end, (t + 1) * kTile);
    float* sum = tile(t) + row * kTile - t * kTile;
    for (int64_t j = begin; j < last; ++j) sum[j] += products[size_t(j - col)];
    begin = last;
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
