#include "model/stream.h"

#include <algorithm>

namespace awq {
namespace {

int64_t shared_rows(const BlockSpec& b) { return b.attention.kv_rows() + b.attention.v_rows(); }

/// Channels [begin, begin + n) of each row.
Tensor channels(const Tensor& stream, int64_t begin, int64_t n) {
  const int64_t width = stream.shape()[1], rows = stream.shape()[0];
  Tensor out = Tensor::empty({rows, n}, DType::f32);
  for (int64_t r = 0; r < rows; ++r)
    std::copy_n(stream.as<float>().data() + r * width + begin, n, out.as<float>().data() + r * n);
  return out;
}

void put_channels(const Tensor& from, int64_t begin, Tensor& stream) {
  const int64_t width = stream.shape()[1], n = from.shape()[1];
  for (int64_t r = 0; r < from.shape()[0]; ++r)
    std::copy_n(from.as<float>().data() + r * n, n, stream.as<float>().data() + r * width + begin);
}

std::vector<int32_t> tokens_in(const Tensor& stream, int dim) {
  std::vector<int32_t> tokens;
  for (int64_t r = 0; r < stream.shape()[0]; ++r)
    tokens.push_back(int32_t(stream.as<float>()[size_t(r * stream.shape()[1] + dim)]));
  return tokens;
}

/// Of the block's shared keys in a row; values follow them.
int64_t keys_begin(const BlockSpec& b) { return b.dim + (b.own_width ? 1 : 0) + b.shared_keys->place; }

Beside beside_of(Backend& dev, const Block& block, const Tensor& stream) {
  const BlockSpec& b = block.spec;
  Beside beside;
  if (b.own_width) beside.own = own_input(dev, block, tokens_in(stream, b.dim));
  if (!b.borrows_keys()) return beside;
  beside.keys = channels(stream, keys_begin(b), b.attention.kv_rows());
  beside.values = channels(stream, keys_begin(b) + b.attention.kv_rows(), b.attention.v_rows());
  return beside;
}

}  // namespace

int64_t stream_width(const ModelSpec& spec) {
  int64_t width = spec.dim + (spec.own_input ? 1 : 0);
  for (const BlockSpec& b : spec.blocks)
    if (b.shared_keys && !b.borrows_keys()) width += shared_rows(b);
  return width;
}

Tensor stream_of(const ModelSpec& spec, const Tensor& x, std::span<const int32_t> tokens) {
  const int64_t width = stream_width(spec);
  if (width == spec.dim) return x;
  Tensor stream = Tensor::zeros({x.shape()[0], width}, DType::f32);
  put_channels(x, 0, stream);
  for (size_t t = 0; spec.own_input && t < tokens.size(); ++t)
    stream.as<float>()[t * size_t(width) + size_t(spec.dim)] = float(tokens[t]);
  return stream;
}

Tensor hidden_of(const Tensor& stream, int dim) { return stream.shape()[1] == dim ? stream : channels(stream, 0, dim); }

std::unique_ptr<KvCache> cache_alone(Backend& dev, const BlockSpec& spec, DType dtype) {
  BlockSpec alone = spec;
  alone.shared_keys.reset();
  return dev.kv_cache({&alone, 1}, dtype);
}

void stream_forward(Backend& dev, const Block& block, Batch batch, Tensor& stream, const Tap& tap) {
  const BlockSpec& b = block.spec;
  if (stream.shape()[1] == b.dim) return block_forward(dev, block, batch, 0, stream, tap);
  Beside beside = beside_of(dev, block, stream);
  Tensor x = hidden_of(stream, b.dim);
  block_forward(dev, block, batch, 0, x, tap, &beside);
  put_channels(x, 0, stream);
  if (!b.shared_keys || b.borrows_keys()) return;
  put_channels(dev.host(beside.keys), keys_begin(b), stream);
  put_channels(dev.host(beside.values), keys_begin(b) + b.attention.kv_rows(), stream);
}

}  // namespace awq
