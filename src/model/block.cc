// What a block computes and what may be scaled in it, side by side: a change to one is a change to both.
#include "model/block.h"

#include <array>

namespace awq {
namespace {

using enum Role;

void norm(Backend& dev, const Block& b, Role role, const Tensor& x, Tensor& y) {
  dev.rms_norm(x, b.norm.at({role}), b.spec.norm, y);
}

/// Outputs of the layers of `roles`, which share the input x.
template <size_t N>
std::array<Tensor, N> apply(Backend& dev, const Block& block, const Role (&roles)[N], const Tensor& x) {
  std::array<const Linear*, N> f;
  std::array<Tensor, N> y;
  for (size_t i = 0; i < N; ++i) f[i] = &block[roles[i]], y[i] = dev.empty({x.shape()[0], f[i]->rows()});
  dev.apply(f, x, y);
  return y;
}

void tapped(const Tap& tap, Role site, const Tensor& x) {
  if (tap) tap({site}, x);
}

}  // namespace

void attention_forward(Backend& dev, const Block& block, Batch batch, int kv_block, const Tensor& x, Tensor& y,
                       const Tap& tap) {
  const AttentionSpec& a = block.spec.attention;
  tapped(tap, q, x);
  auto [queries, keys, values] = apply(dev, block, {q, k, v}, x);
  if (a.head_norm) {
    norm(dev, block, q_norm, queries, queries);
    norm(dev, block, k_norm, keys, keys);
  }
  dev.rope(queries, batch, block.rope, a.head_dim);
  dev.rope(keys, batch, block.rope, a.head_dim);
  Tensor mixed = dev.empty(queries.shape());
  dev.attention(queries, keys, values, batch, kv_block, a, mixed);
  tapped(tap, o, mixed);
  block[o](mixed, y);
}

void mlp_forward(Backend& dev, const Block& block, const Tensor& x, Tensor& y, const Tap& tap) {
  tapped(tap, gate, x);
  auto [g, u] = apply(dev, block, {gate, up}, x);
  dev.gate(g, u, block.spec.mlp.act, g);
  tapped(tap, down, g);
  block[down](g, y);
}

void block_forward(Backend& dev, const Block& block, Batch batch, int kv_block, Tensor& x, const Tap& tap) {
  const bool sandwich = block.spec.placement == NormPlacement::both;
  Tensor h = dev.empty(x.shape()), y = dev.empty(x.shape());
  norm(dev, block, attn_norm, x, h);
  attention_forward(dev, block, batch, kv_block, h, y, tap);
  if (sandwich) norm(dev, block, attn_post_norm, y, y);
  dev.add(y, x);
  norm(dev, block, mlp_norm, x, h);
  mlp_forward(dev, block, h, y, tap);
  if (sandwich) norm(dev, block, mlp_post_norm, y, y);
  dev.add(y, x);
}

// attn_norm feeds exactly q, k, v and mlp_norm exactly gate, up. v reaches o through a weighted mean over positions, so
// a channel of v may be scaled if every query head that reads its kv head agrees. up reaches down through a product.
// A norm after the module (sandwich) and the norms of heads see unscaled values: o and down absorb nothing.
std::vector<ScaleGroup> scale_groups(const BlockSpec& spec) {
  return {
      {.producer = {attn_norm}, .consumers = {{q}, {k}, {v}}},
      {.producer = {v},
       .consumers = {{o}},
       .tied_heads = spec.attention.heads / spec.attention.kv_heads,
       .head_dim = spec.attention.head_dim},
      {.producer = {mlp_norm}, .consumers = {{gate}, {up}}},
      {.producer = {up}, .consumers = {{down}}},
  };
}

namespace {

void multiply(std::vector<float>& factors, std::span<const float> s) {
  if (factors.empty()) factors.assign(s.size(), 1.f);
  for (size_t i = 0; i < s.size(); ++i) factors[i] *= s[i];
}

void scale_row(float* w, size_t row, size_t cols, const Factors& f) {
  if (!f.columns.empty())
    for (size_t c = 0; c < cols; ++c) w[c] *= f.columns[c];
  if (!f.rows.empty())
    for (size_t c = 0; c < cols; ++c) w[c] /= f.rows[row];
}

// One factor a row of the producer: with tied heads the first query head of each kv head speaks for all.
std::vector<float> producer_scales(const ScaleGroup& g, std::span<const float> s) {
  if (g.tied_heads == 1) return {s.begin(), s.end()};
  std::vector<float> rows;
  const size_t head = size_t(g.head_dim);
  for (size_t begin = 0; begin < s.size(); begin += head * size_t(g.tied_heads))
    rows.insert(rows.end(), s.begin() + long(begin), s.begin() + long(begin + head));
  return rows;
}

}  // namespace

void BlockWeights::read_rows(Param p, int64_t first, int64_t count, float* to) const {
  const Tensor band = tensor(p).rows(first, first + count);
  band.widen(to);
  const auto f = factors.find(p);
  if (f == factors.end()) return;
  const auto cols = size_t(band.shape()[1]);
  for (int64_t r = 0; r < count; ++r) scale_row(to + r * int64_t(cols), size_t(first + r), cols, f->second);
}

Pieces BlockWeights::pieces(Param p, bool wide) const {
  const Tensor& w = tensor(p);
  if (!factors.contains(p) && !(wide && w.dtype() != DType::f32)) return pieces_of(w);
  const int64_t cols = w.shape()[1];
  return in_bands(w.shape(), DType::f32, cols * int64_t(sizeof(float)), 1, [this, p, cols](int64_t begin, int64_t end) {
    Tensor band = Tensor::empty({end - begin, cols}, DType::f32);
    read_rows(p, begin, end - begin, band.as<float>().data());
    return band;
  });
}

void fold(BlockWeights& w, const ScaleGroup& group, std::span<const float> s) {
  for (Param c : group.consumers) multiply(w.factors[c].columns, s);
  const std::vector<float> rows = producer_scales(group, s);
  if (is_norm(group.producer.role)) {
    const float offset = w.spec.norm.gain_offset;
    auto gain = w.tensor(group.producer).as<float>();
    for (size_t i = 0; i < gain.size(); ++i) gain[i] = (gain[i] + offset) / rows[i] - offset;
  } else {
    multiply(w.factors[group.producer].rows, rows);
    if (const auto b = w.bias.find(group.producer); b != w.bias.end())
      for (size_t i = 0; i < rows.size(); ++i) b->second.as<float>()[i] /= rows[i];
  }
}

Block upload(Backend& dev, const BlockWeights& w, bool wide) {
  Block b{.spec = w.spec, .norm = {}, .linear = {}, .rope = w.spec.attention.rope.frequencies()};
  for (const auto& [param, weight] : w.at) {
    if (is_norm(param.role)) {
      b.norm[param] = std::get<Tensor>(weight).to(DType::f32).clone();  // a fold of `w` must not reach the device
      continue;
    }
    const auto bias = w.bias.find(param);
    b.linear[param] = dev.linear(w.pieces(param, wide), bias == w.bias.end() ? nullptr : &bias->second);
  }
  return b;
}

int64_t Model::bytes_per_token() const {
  int64_t n = head->bytes();
  for (const Block& b : blocks)
    for (const auto& [param, linear] : b.linear) n += linear->bytes();
  return n;
}

Tensor hidden_forward(Backend& dev, const Model& m, std::span<const int32_t> tokens, Batch batch) {
  Tensor x = dev.empty({int64_t(tokens.size()), m.spec.dim});
  dev.embed(m.embed, tokens, m.spec.embed_scale, x);
  for (size_t i = 0; i < m.blocks.size(); ++i) block_forward(dev, m.blocks[i], batch, int(i), x);
  dev.rms_norm(x, m.final_norm, m.spec.final_norm, x);
  return x;
}

}  // namespace awq
