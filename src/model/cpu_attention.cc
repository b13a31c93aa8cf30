#include "model/cpu_attention.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>

#include "base/numeric.h"

namespace awq {
namespace {

using kernels::AttentionPart;
using kernels::kKvPage;
using kernels::kMaxAttentionRows;
using kernels::kPanel;

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
int64_t pages_for(int64_t positions) { return (positions + kKvPage - 1) / kKvPage; }
int64_t padded(int64_t head_dim) { return round_up(head_dim, kPanel); }

}  // namespace

CpuKvCache::CpuKvCache(std::span<const BlockSpec> blocks, DType dtype) : dtype_(dtype), deltas_(blocks) {
  for (const BlockSpec& b : blocks)
    blocks_.push_back({.heads = b.borrows_keys() ? 0 : b.attention.kv_heads,
                       .head_dim = b.attention.head_dim,
                       .value_dim = b.attention.v_dim()});
}

int64_t CpuKvCache::head_bytes(const PerBlock& b) const {
  return kKvPage * ((padded(b.head_dim) + padded(b.value_dim)) * int64_t(size_of(dtype_)) + kv_scale_bytes(dtype_));
}

int64_t CpuKvCache::bytes() const {
  int64_t n = deltas_.bytes();
  for (const PerBlock& b : blocks_)
    for (const Tensor& page : b.pages) n += int64_t(page.bytes());
  return n;
}

int64_t CpuKvCache::bytes_for(int64_t positions) const {
  int64_t n = deltas_.bytes_for(positions);
  for (const PerBlock& b : blocks_) n += pages_for(positions) * b.heads * head_bytes(b);
  return n;
}

std::unique_ptr<KvCache> CpuKvCache::clone() const {
  auto copy = std::make_unique<CpuKvCache>(*this);
  for (PerBlock& b : copy->blocks_)
    for (Tensor& page : b.pages) page = page.clone();
  copy->deltas_.unshare();
  return copy;
}

std::vector<Tensor> CpuKvCache::page(int64_t index) const {
  std::vector<Tensor> all;
  for (const PerBlock& b : blocks_)
    if (b.heads) all.push_back(b.pages.at(size_t(index)));
  return all;
}

void CpuKvCache::put_page(int64_t index, std::span<const Tensor> page) {
  for (size_t i = 0; PerBlock & b : blocks_) {
    if (!b.heads) continue;
    b.pages.resize(std::max(b.pages.size(), size_t(index) + 1));
    b.pages[size_t(index)] = page[i++];
  }
}

void CpuKvCache::require(int block, int64_t positions) const {
  const auto there = int64_t(blocks_.at(size_t(block)).pages.size());
  if (there < pages_for(positions))
    fail("forward", "{} positions are read of block {}'s keys, which has {} pages of {}", positions, block, there,
         int(kKvPage));
}

void CpuKvCache::reserve(int block, int64_t positions) {
  PerBlock& b = blocks_.at(size_t(block));
  while (int64_t(b.pages.size()) < pages_for(positions))
    b.pages.push_back(Tensor::empty({b.heads * head_bytes(b)}, DType::u8));
}

namespace {

/// Place in a unit of 2 x 16 elements: see kernels::AttentionStep.
template <DType D>
int64_t in_unit(int64_t half, int64_t lane) {
  return D == DType::bf16 ? 2 * lane + half : half * kPanel + lane;
}

/// One position of one head. Keys past the head's width are 0, because queries multiply them.
template <DType D, class T, class Convert>
void store_head(std::span<const float> k, std::span<const float> v, int64_t at, T* page, Convert convert) {
  const auto width = int64_t(k.size()), dim = padded(width);
  T* keys = page + at / kPanel * kPanel * dim;
  for (int64_t c = 0; c < dim; ++c)
    keys[c / 2 * 2 * kPanel + in_unit<D>(c % 2, at % kPanel)] = c < width ? convert(k[size_t(c)], 0) : T(0);
  T* values = page + kKvPage * dim + at / 2 * 2 * kPanel;
  for (int64_t c = 0; c < int64_t(v.size()); ++c)
    values[c / kPanel * int64_t(kPanel) * kKvPage + in_unit<D>(at % 2, c % kPanel)] = convert(v[size_t(c)], 1);
}

/// For round to nearest: max |x| / 127.
struct Int8Codes {
  static constexpr DType kType = DType::i8;
  using Code = int8_t;
  static float scale(float most) { return most / 127.f; }
  static int8_t code(float x) { return int8_t(std::clamp(std::nearbyint(x), -127.f, 127.f)); }
};
/// The power of two that brings max |x| into [2^7, 2^8): e4m3 ends at 448, and nothing is rounded twice.
struct Fp8Codes {
  static constexpr DType kType = DType::f8_e4m3;
  using Code = uint8_t;
  static float scale(float most) {
    return most > 0 && std::isfinite(most) ? std::ldexp(1.f, std::max(std::ilogb(most) - 7, -120)) : 1;
  }
  static uint8_t code(float x) { return f32_to_e4m3(x); }
};

/// NaN where x holds infinity or NaN, and with it every product.
template <class Codes>
float scale_of(std::span<const float> x) {
  float top = 0, sum = 0;
  for (float v : x) top = std::max(top, std::abs(v)), sum += v * 0.f;
  return Codes::scale(top) + sum;
}

template <class Codes>
void store_head_codes(std::span<const float> k, std::span<const float> v, int64_t at, std::byte* page) {
  using Code = typename Codes::Code;
  auto* scales = reinterpret_cast<float*>(page + kKvPage * (padded(int64_t(k.size())) + padded(int64_t(v.size()))));
  const float scale[2] = {scale_of<Codes>(k), scale_of<Codes>(v)};
  const float inverse[2] = {scale[0] > 0 ? 1 / scale[0] : 0.f, scale[1] > 0 ? 1 / scale[1] : 0.f};
  store_head<Codes::kType>(k, v, at, reinterpret_cast<Code*>(page), [&](float x, int which) {
    return inverse[which] > 0 ? Codes::code(x * inverse[which]) : Code(0);
  });
  scales[at] = scale[0];
  scales[kKvPage + at] = scale[1];
}

}  // namespace

void CpuKvCache::put(int block, int64_t position, const float* k, const float* v) {
  PerBlock& b = blocks_[size_t(block)];
  const int64_t at = position % kKvPage;
  std::byte* page = b.pages[size_t(position / kKvPage)].data();
  for (int64_t h = 0; h < b.heads; ++h, page += head_bytes(b)) {
    const std::span<const float> key(k + h * b.head_dim, size_t(b.head_dim)),
        value(v + h * b.value_dim, size_t(b.value_dim));
    auto* page16 = reinterpret_cast<uint16_t*>(page);
    if (dtype_ == DType::f32)
      store_head<DType::f32>(key, value, at, reinterpret_cast<float*>(page), [](float x, int) { return x; });
    else if (dtype_ == DType::bf16)
      store_head<DType::bf16>(key, value, at, page16, [](float x, int) { return f32_to_bf16(x); });
    else if (dtype_ == DType::f16)
      store_head<DType::f16>(key, value, at, page16, [](float x, int) { return f32_to_f16(x); });
    else if (dtype_ == DType::i8)
      store_head_codes<Int8Codes>(key, value, at, page);
    else
      store_head_codes<Fp8Codes>(key, value, at, page);
  }
}

namespace {

/// Up to kMaxAttentionRows queries of one sequence that read one kv head: row i is token i / share of the sequence's
/// new ones and query head i % share of the group.
struct Tile {
  const Sequence* sequence;
  int64_t row;  // of the sequence's first token in the batch
  int head;
  int64_t begin, end;            // rows
  int64_t page_begin, page_end;  // what they see
  int64_t pages() const { return page_end - page_begin; }
};

/// Memory of one AttentionPart.
class Part {
 public:
  Part(int64_t rows, int64_t value_dim)
      : rows_(rows), dim_(value_dim), data_(std::make_unique_for_overwrite<float[]>(size_t(rows * (value_dim + 2)))) {}
  AttentionPart view() const { return {data_.get(), data_.get() + rows_, data_.get() + 2 * rows_}; }
  void clear() {  // nothing seen
    std::fill_n(data_.get(), rows_ * (dim_ + 2), 0.f);
    std::fill_n(data_.get(), rows_, -std::numeric_limits<float>::infinity());
  }

 private:
  int64_t rows_, dim_;
  std::unique_ptr<float[]> data_;
};

// Flash attention: page by page, each with its own maximum, merged in the order of pages. Pages lie at fixed positions,
// so that the result depends neither on how tokens came in chunks nor on threads.
class AttentionJob {
 public:
  AttentionJob(const kernels::KernelSet& k, const Tensor& q, std::span<const float> sinks, int block,
               const AttentionSpec& spec, Tensor& y)
      : kernels_(k),
        q_(q.as<float>().data()),
        sinks_(sinks),
        y_(y.as<float>().data()),
        block_(block),
        spec_(spec),
        share_(spec.heads / spec.kv_heads),
        dim_(padded(spec.head_dim)),
        value_dim_(padded(spec.v_dim())),
        slopes_(spec.alibi_slopes()) {
    for (float& s : slopes_) s *= float(std::numbers::log2e);
  }

  /// A tile by itself. Scratch is a few tiles of queries, whatever the context.
  void whole(const Tile& t) const {
    const Part part(t.end - t.begin, value_dim_);
    const std::vector<float> queries = gather(t);
    Part sum(t.end - t.begin, value_dim_);
    sum.clear();
    for (int64_t page = t.page_begin; page < t.page_end; ++page) {
      step(t, queries, page, part.view());
      merge(t, part, sum);
    }
    scatter(t, sum.view());
  }
  void one_page(const Tile& t, int64_t page, const Part& part) const { step(t, gather(t), page, part.view()); }
  void merge_all(const Tile& t, std::span<const Part> parts) const {
    Part sum(t.end - t.begin, value_dim_);
    sum.clear();
    for (const Part& part : parts) merge(t, part, sum);
    scatter(t, sum.view());
  }
  Part part_of(const Tile& t) const { return {t.end - t.begin, value_dim_}; }

 private:
  /// Of a row's head where heads have so many channels.
  int64_t offset(const Tile& t, int64_t i, int64_t width) const {
    return ((t.row + i / share_) * spec_.heads + t.head * share_ + i % share_) * width;
  }
  // Weights are powers of 2: log2 e goes into the queries together with the scale.
  std::vector<float> gather(const Tile& t) const {
    const auto scale = float(double(spec_.score_scale()) * std::numbers::log2e);
    std::vector<float> out(size_t((t.end - t.begin) * dim_));
    for (int64_t i = t.begin; i < t.end; ++i) {
      const float* from = q_ + offset(t, i, spec_.head_dim);
      float* to = out.data() + (i - t.begin) * dim_;
      for (int64_t c = 0; c < spec_.head_dim; ++c) to[c] = from[c] * scale;
    }
    return out;
  }
  void step(const Tile& t, const std::vector<float>& queries, int64_t page, const AttentionPart& to) const {
    int32_t first[kMaxAttentionRows], last[kMaxAttentionRows], query[kMaxAttentionRows];
    float slopes[kMaxAttentionRows];
    for (int64_t i = t.begin; i < t.end; ++i) {
      const int64_t end = t.sequence->first + i / share_ + 1, begin = spec_.window ? end - *spec_.window : 0;
      first[i - t.begin] = int32_t(std::clamp<int64_t>(begin - page * kKvPage, 0, kKvPage));
      last[i - t.begin] = int32_t(std::clamp<int64_t>(end - page * kKvPage, 0, kKvPage));
      query[i - t.begin] = int32_t(end - 1 - page * kKvPage);
      slopes[i - t.begin] = slopes_.empty() ? 0 : slopes_[size_t(t.head * share_ + i % share_)];
    }
    const auto& kv = static_cast<const CpuKvCache&>(*t.sequence->kv);
    kernel(kv.dtype())({.page = kv.page(block_, t.head, page),
                        .q = queries.data(),
                        .first = first,
                        .last = last,
                        .rows = int32_t(t.end - t.begin),
                        .dim = int32_t(dim_),
                        .value_dim = int32_t(value_dim_),
                        .to = to,
                        .cap = float(double(spec_.soft_cap) * std::numbers::log2e),
                        .slopes = slopes_.empty() ? nullptr : slopes,
                        .query = query});
  }
  void (*kernel(DType t) const)(const kernels::AttentionStep&) {
    return t == DType::f32    ? kernels_.attend_f32
           : t == DType::bf16 ? kernels_.attend_bf16
           : t == DType::f16  ? kernels_.attend_f16
           : t == DType::i8   ? kernels_.attend_i8
                              : kernels_.attend_f8;
  }
  void merge(const Tile& t, const Part& part, const Part& into) const {
    kernels_.attention_merge(part.view(), int32_t(t.end - t.begin), int32_t(value_dim_), into.view());
  }
  /// A sink has a weight and no value: it is no position of any page.
  float with_sink(const Tile& t, int64_t i, float max, float sum) const {
    if (sinks_.empty()) return sum;
    const double sink = double(sinks_[size_t(t.head * share_ + i % share_)]) * std::numbers::log2e;
    return float(double(sum) + std::exp2(sink - double(max)));
  }
  void scatter(const Tile& t, const AttentionPart& sum) const {
    for (int64_t i = t.begin; i < t.end; ++i) {
      const int64_t r = i - t.begin;
      const float weights = with_sink(t, i, sum.max[r], sum.sum[r]);
      const float* from = sum.out + r * value_dim_;
      float* to = y_ + offset(t, i, spec_.v_dim());
      for (int64_t c = 0; c < spec_.v_dim(); ++c) to[c] = from[c] / weights;
    }
  }

  const kernels::KernelSet& kernels_;
  const float* q_;
  std::span<const float> sinks_;
  float* y_;
  int block_;
  const AttentionSpec& spec_;
  int64_t share_, dim_, value_dim_;
  std::vector<float> slopes_;  // times log2 e
};

std::vector<Tile> tiles_of(Batch batch, const AttentionSpec& spec) {
  const int64_t share = spec.heads / spec.kv_heads;
  std::vector<Tile> tiles;
  int64_t row = 0;
  for (const Sequence& s : batch) {
    for (int head = 0; head < spec.kv_heads; ++head)
      for (int64_t i = 0; i < s.tokens * share; i += kMaxAttentionRows) {
        const int64_t end = std::min<int64_t>(i + kMaxAttentionRows, s.tokens * share);
        const int64_t seen = spec.window ? std::max<int64_t>(0, s.first + i / share + 1 - *spec.window) : 0;
        tiles.push_back({&s, row, head, i, end, seen / kKvPage, pages_for(s.first + (end - 1) / share + 1)});
      }
    row += s.tokens;
  }
  // Long tiles first, so that no thread is left with the longest one at the end.
  std::stable_sort(tiles.begin(), tiles.end(), [](const Tile& a, const Tile& b) { return a.pages() > b.pages(); });
  return tiles;
}

/// The parts of a tile whose pages are taken by several threads; who finishes the last one merges them.
struct SplitTile {
  SplitTile(const AttentionJob& job, const Tile& t) : tile(t), left(int(t.pages())) {
    for (int64_t p = 0; p < t.pages(); ++p) parts.push_back(job.part_of(t));
  }
  void run(const AttentionJob& job, int64_t page) {
    job.one_page(tile, tile.page_begin + page, parts[size_t(page)]);
    if (left.fetch_sub(1, std::memory_order_acq_rel) == 1) job.merge_all(tile, parts);
  }
  const Tile& tile;
  std::vector<Part> parts;
  std::atomic<int> left;
};

// A tile that is more than its share of the work, a quarter of a thread's, is split into pages (decoding, long
// sequences beside short ones); there are fewer than 4 x threads of these. Both ways give the same bits.
void run_tiles(ThreadPool& pool, const std::vector<Tile>& tiles, const AttentionJob& job) {
  int64_t all = 0;
  for (const Tile& t : tiles) all += t.pages();
  std::vector<std::unique_ptr<SplitTile>> split;
  std::vector<std::pair<SplitTile*, int64_t>> units;
  for (const Tile& t : tiles) {
    if (pool.size() == 1 || t.pages() * 4 * pool.size() <= all) break;  // the rest is no longer
    split.push_back(std::make_unique<SplitTile>(job, t));
    for (int64_t p = 0; p < t.pages(); ++p) units.emplace_back(split.back().get(), p);
  }
  pool.each(int64_t(units.size() + tiles.size() - split.size()), [&](int64_t i) {
    if (size_t(i) < units.size())
      units[size_t(i)].first->run(job, units[size_t(i)].second);
    else
      job.whole(tiles[size_t(i) - units.size() + split.size()]);
  });
}

/// Keys and values of the batch's tokens [begin, end).
void store_tokens(const Tensor& k, const Tensor& v, Batch batch, int block, const AttentionSpec& spec, int64_t begin,
                  int64_t end) {
  int64_t row = 0;
  for (const Sequence& s : batch) {
    for (int64_t t = std::max(begin, row); t < std::min(end, row + s.tokens); ++t)
      static_cast<CpuKvCache&>(*s.kv).put(block, s.first + (t - row), k.as<float>().data() + t * spec.kv_rows(),
                                          v.as<float>().data() + t * spec.v_rows());
    row += s.tokens;
  }
}

void store(ThreadPool& pool, const Tensor& k, const Tensor& v, Batch batch, int block, const AttentionSpec& spec) {
  for (const Sequence& s : batch) static_cast<CpuKvCache&>(*s.kv).reserve(block, int64_t(s.first) + s.tokens);
  const int64_t tokens = k.shape()[0];
  const auto part = [&](int64_t begin, int64_t end) { store_tokens(k, v, batch, block, spec, begin, end); };
  if (tokens < 8)
    part(0, tokens);  // a fork and a join would cost more
  else
    pool.run(tokens, 1, part);
}

}  // namespace

void cpu_attention(ThreadPool& pool, const kernels::KernelSet& kernels, const Tensor& q, const Tensor& k,
                   const Tensor& v, std::span<const float> sinks, Batch batch, int block, const AttentionSpec& spec,
                   Tensor& y) {
  if (k)
    store(pool, k, v, batch, block, spec);
  else
    for (const Sequence& s : batch) static_cast<CpuKvCache&>(*s.kv).require(block, int64_t(s.first) + s.tokens);
  run_tiles(pool, tiles_of(batch, spec), AttentionJob(kernels, q, sinks, block, spec, y));
}

}  // namespace awq
