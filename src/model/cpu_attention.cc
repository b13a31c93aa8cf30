#include "model/cpu_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/numeric.h"

namespace awq {
namespace {

using kernels::kPanel;

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

}  // namespace

CpuKvCache::CpuKvCache(std::span<const BlockSpec> blocks, DType dtype) : dtype_(dtype) {
  for (const BlockSpec& b : blocks)
    blocks_.push_back({.heads = b.attention.kv_heads, .head_dim = b.attention.head_dim});
}

int64_t CpuKvCache::bytes() const {
  int64_t n = 0;
  for (const PerBlock& b : blocks_) n += b.k ? int64_t(b.k.bytes() + b.v.bytes()) : 0;
  return n;
}

std::unique_ptr<KvCache> CpuKvCache::clone() const {
  auto copy = std::make_unique<CpuKvCache>(*this);
  for (PerBlock& b : copy->blocks_)
    for (Tensor* t : {&b.k, &b.v})
      if (*t) *t = t->clone();
  return copy;
}

// Exact at first (a window to score), doubling later: a chat of n tokens copies fewer than 2n of them.
void CpuKvCache::reserve(int block, int64_t positions) {
  PerBlock& b = blocks_.at(size_t(block));
  if (positions <= b.capacity) return;
  const int64_t capacity = std::max(round_up(positions, kPanel), std::min<int64_t>(2 * b.capacity, b.capacity + 8192));
  // 16 elements of padding: gemm may read past the last row of a head_dim that is no multiple of 16.
  const auto grow = [&](Tensor& t) {
    Tensor bigger = Tensor::zeros({b.heads * capacity * b.head_dim + kPanel}, dtype_);
    const size_t from = size_t(b.capacity * b.head_dim) * size_of(dtype_),
                 to = size_t(capacity * b.head_dim) * size_of(dtype_);
    for (size_t h = 0; h < size_t(b.heads) && t; ++h) std::memcpy(bigger.data() + h * to, t.data() + h * from, from);
    t = bigger;
  };
  grow(b.k);
  grow(b.v);
  b.capacity = capacity;
}

namespace {

// Keys go to one lane of a panel, values to a row.
template <class T, class Convert>
void store_head(const float* k, const float* v, int64_t dim, T* panel, T* row, Convert convert) {
  for (int64_t i = 0; i < dim; ++i) panel[i * kPanel] = convert(k[i]);
  for (int64_t i = 0; i < dim; ++i) row[i] = convert(v[i]);
}

}  // namespace

void CpuKvCache::put(int block, int64_t position, const float* k, const float* v) {
  PerBlock& b = blocks_[size_t(block)];
  for (int64_t h = 0; h < b.heads; ++h, k += b.head_dim, v += b.head_dim) {
    const int64_t panel = (h * b.capacity + position / kPanel * kPanel) * b.head_dim + position % kPanel;
    const int64_t row = (h * b.capacity + position) * b.head_dim;
    if (dtype_ == DType::f32) {
      store_head(k, v, b.head_dim, b.k.as<float>().data() + panel, b.v.as<float>().data() + row,
                 [](float f) { return f; });
    } else {
      auto* keys16 = reinterpret_cast<uint16_t*>(b.k.data());
      store_head(k, v, b.head_dim, keys16 + panel, reinterpret_cast<uint16_t*>(b.v.data()) + row, f32_to_f16);
    }
  }
}

namespace {

/// Consecutive tokens of one sequence and the query heads that read one kv head: one softmax(q k^T) v.
struct Tile {
  const CpuKvCache* kv;
  int64_t row;    // of the batch
  int64_t first;  // position of the first token
  int tokens, head;
};

constexpr int kTileRows =
    48;  // queries a tile: enough to reuse keys and values, few enough for the scores to stay in L2

class AttentionJob {
 public:
  AttentionJob(const kernels::KernelSet& k, const Tensor& q, int block, const AttentionSpec& spec, Tensor& y)
      : kernels_(k),
        q_(q.as<float>().data()),
        y_(y.as<float>().data()),
        block_(block),
        spec_(spec),
        share_(spec.heads / spec.kv_heads) {}

  void operator()(const Tile& t) const {
    const int64_t d = spec_.head_dim, rows = int64_t(t.tokens) * share_, end = t.first + t.tokens;
    const int64_t begin = spec_.window ? std::max<int64_t>(0, t.first - *spec_.window + 1) / kPanel * kPanel : 0;
    const int64_t n = end - begin, n_row = round_up(n, kPanel);
    std::vector<float> queries(size_t(rows * d)), scores(size_t(rows * n_row)), out(size_t(rows * d));
    gather(t, queries.data());
    const auto gemm = t.kv->dtype() == DType::f32 ? kernels_.gemm_f32 : kernels_.gemm_f16;
    gemm({.a = queries.data(),
          .a_row = d,
          .b = t.kv->keys(block_, t.head, begin),
          .b_panel = d * kPanel,
          .b_k = kPanel,
          .c = scores.data(),
          .c_row = n_row,
          .m = int32_t(rows),
          .n = int32_t(n),
          .k = int32_t(d),
          .accumulate = false});
    mask(t, begin, n, scores.data(), n_row);
    kernels_.softmax(scores.data(), n_row, int32_t(rows), int32_t(n));
    gemm({.a = scores.data(),
          .a_row = n_row,
          .b = t.kv->values(block_, t.head, begin),
          .b_panel = kPanel,
          .b_k = d,
          .c = out.data(),
          .c_row = d,
          .m = int32_t(rows),
          .n = int32_t(d),
          .k = int32_t(n),
          .accumulate = false});
    scatter(t, out.data());
  }

 private:
  const float* query(const Tile& t, int64_t i) const { return q_ + offset(t, i); }
  int64_t offset(const Tile& t, int64_t i) const {  // row i of the tile: token i / share, head i % share of the group
    return (t.row + i / share_) * spec_.q_rows() + (int64_t(t.head) * share_ + i % share_) * spec_.head_dim;
  }
  void gather(const Tile& t, float* out) const {
    for (int64_t i = 0; i < int64_t(t.tokens) * share_; ++i)
      for (int64_t c = 0; c < spec_.head_dim; ++c) *out++ = query(t, i)[c] * spec_.query_scale;
  }
  void scatter(const Tile& t, const float* out) const {
    for (int64_t i = 0; i < int64_t(t.tokens) * share_; ++i)
      std::memcpy(y_ + offset(t, i), out + i * spec_.head_dim, size_t(spec_.head_dim) * sizeof(float));
  }
  void mask(const Tile& t, int64_t begin, int64_t n, float* scores, int64_t row) const {
    constexpr float hidden = -std::numeric_limits<float>::infinity();
    for (int64_t i = 0; i < int64_t(t.tokens) * share_; ++i) {
      const int64_t last = t.first + i / share_ - begin;
      const int64_t first = spec_.window ? std::max<int64_t>(0, last - *spec_.window + 1) : 0;
      std::fill(scores + i * row, scores + i * row + first, hidden);
      std::fill(scores + i * row + last + 1, scores + i * row + n, hidden);
    }
  }

  const kernels::KernelSet& kernels_;
  const float* q_;
  float* y_;
  int block_;
  const AttentionSpec& spec_;
  int64_t share_;
};

std::vector<Tile> tiles_of(Batch batch, const AttentionSpec& spec) {
  const int step = std::max(1, kTileRows / (spec.heads / spec.kv_heads));
  std::vector<Tile> tiles;
  int64_t row = 0;
  for (const Sequence& s : batch) {
    for (int head = 0; head < spec.kv_heads; ++head)
      for (int t = 0; t < s.tokens; t += step)
        tiles.push_back(
            {static_cast<const CpuKvCache*>(s.kv), row + t, int64_t(s.first) + t, std::min(step, s.tokens - t), head});
    row += s.tokens;
  }
  // Long tiles first, so that no thread is left with the longest one at the end.
  std::stable_sort(tiles.begin(), tiles.end(), [](const Tile& a, const Tile& b) { return a.first > b.first; });
  return tiles;
}

void store(ThreadPool& pool, const Tensor& k, const Tensor& v, Batch batch, int block, const AttentionSpec& spec) {
  int64_t row = 0;
  for (const Sequence& s : batch) {
    auto& kv = static_cast<CpuKvCache&>(*s.kv);
    kv.reserve(block, int64_t(s.first) + s.tokens);
    const auto put = [&kv, &s, &k, &v, row, block, width = int64_t(spec.kv_rows())](int64_t b, int64_t e) {
      for (int64_t t = b; t < e; ++t)
        kv.put(block, s.first + t, k.as<float>().data() + (row + t) * width, v.as<float>().data() + (row + t) * width);
    };
    if (s.tokens < 64)
      put(0, s.tokens);
    else
      pool.run(s.tokens, kPanel, put);
    row += s.tokens;
  }
}

}  // namespace

void cpu_attention(ThreadPool& pool, const kernels::KernelSet& kernels, const Tensor& q, const Tensor& k,
                   const Tensor& v, Batch batch, int block, const AttentionSpec& spec, Tensor& y) {
  store(pool, k, v, batch, block, spec);
  const std::vector<Tile> tiles = tiles_of(batch, spec);
  const AttentionJob job(kernels, q, block, spec, y);
  pool.each(int64_t(tiles.size()), [&](int64_t i) { job(tiles[size_t(i)]); });
}

}  // namespace awq
