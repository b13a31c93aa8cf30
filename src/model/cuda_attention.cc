#include "model/cuda_attention.h"

#include <algorithm>
#include <numbers>

namespace awq {
namespace {

/// Sequences with so few new tokens read their pages in parallel: nothing else would give the GPU enough to do.
constexpr int kSplitTokens = 8;

/// What kernels are told of a batch.
struct CudaBatch {
  std::vector<uint8_t*> pages;
  std::vector<cuda::KvSequence> sequences;
  std::vector<int32_t> sequence_of;
  std::vector<cuda::AttentionTile> tiles;
  std::vector<cuda::AttentionUnit> units;
  int32_t whole = 0;

  CudaBatch(Batch batch, const AttentionSpec& spec) {
    for (const Sequence& s : batch) add(s);
    for (const bool split : {false, true}) {
      for (size_t i = 0; i < batch.size(); ++i)
        if (split == (batch[i].tokens <= kSplitTokens)) add_tiles(batch[i], int32_t(i), spec, split);
      if (!split) whole = int32_t(tiles.size());
    }
  }

 private:
  void add(const Sequence& s) {
    auto& kv = static_cast<CudaKvCache&>(*s.kv);
    kv.reserve(int64_t(s.first) + s.tokens);
    sequences.push_back({int32_t(sequence_of.size()), s.tokens, s.first, int32_t(pages.size())});
    sequence_of.insert(sequence_of.end(), size_t(s.tokens), int32_t(sequences.size() - 1));
    for (const Tensor& page : kv.pages()) pages.push_back(reinterpret_cast<uint8_t*>(Tensor(page).data()));
  }
  void add_tiles(const Sequence& s, int32_t index, const AttentionSpec& spec, bool split) {
    const int share = spec.heads / spec.kv_heads, rows = s.tokens * share;
    for (int begin = 0; begin < rows; begin += cuda::kAttentionRows)
      for (int head = 0; head < spec.kv_heads; ++head) {
        const int end = std::min<int>(begin + cuda::kAttentionRows, rows);
        const int seen = spec.window ? std::max(0, s.first + begin / share + 1 - *spec.window) : 0;
        const int last = s.first + (end - 1) / share;
        const cuda::AttentionTile t{
            index, head, begin, end, seen / cuda::kKvPage, last / cuda::kKvPage + 1, int32_t(units.size())};
        for (int p = t.page_begin; split && p < t.page_end; ++p) units.push_back({int32_t(tiles.size()), p});
        tiles.push_back(t);
      }
  }
};

std::vector<float> times_log2e(std::span<const float> v) {
  std::vector<float> out;
  for (float x : v) out.push_back(float(double(x) * std::numbers::log2e));
  return out;
}

}  // namespace

const std::byte* CudaArrays::find(std::span<const std::byte> bytes) {
  if (bytes.empty()) return nullptr;
  const auto found = std::ranges::find_if(entries_, [&](const Entry& e) { return std::ranges::equal(e.host, bytes); });
  if (found != entries_.end()) {
    entries_.splice(entries_.begin(), entries_, found);
  } else {
    entries_.push_front({{bytes.begin(), bytes.end()}, memory_.upload(bytes)});
    if (entries_.size() > kEntries) entries_.pop_back();
  }
  return std::as_const(entries_.front().device).data();
}

void cuda_attention(CudaContext& cuda, CudaArrays& arrays, const Tensor& q, const Tensor& k, const Tensor& v,
                    std::span<const float> sinks, Batch batch, int block, const AttentionSpec& spec, Tensor& y) {
  const CudaBatch b(batch, spec);
  const cuda::KvShape shape = static_cast<const CudaKvCache&>(*batch.front().kv).shape(block);
  CudaMemory& memory = *cuda.memory;
  void* on = memory.device().stream();
  uint8_t* const* table = arrays.at(b.pages);
  const cuda::KvSequence* sequences = arrays.at(b.sequences);
  if (k)
    cuda.kernels().kv_store(on, {shape, k.as<float>().data(), v.as<float>().data(), table, sequences,
                                 arrays.at(b.sequence_of), int32_t(b.sequence_of.size())});
  const std::vector<float> slopes = times_log2e(spec.alibi_slopes()), extra = times_log2e(sinks);
  Tensor parts;
  if (!b.units.empty())
    parts = memory.empty({int64_t(b.units.size()), cuda::kAttentionRows, shape.padded_value + 2}, DType::f32);
  cuda::AttentionArgs a{};
  a.kv = shape;
  a.q = q.as<float>().data();
  a.y = y.as<float>().data();
  a.table = table;
  a.sequences = sequences;
  a.tiles = arrays.at(b.tiles);
  a.units = arrays.at(b.units);
  a.whole_count = b.whole;
  a.unit_count = int32_t(b.units.size());
  a.share = spec.heads / spec.kv_heads;
  a.window = spec.window.value_or(0);
  a.scale = float(double(spec.score_scale()) * std::numbers::log2e);
  a.cap = float(double(spec.soft_cap) * std::numbers::log2e);
  a.slopes = arrays.at(slopes);
  a.sinks = arrays.at(extra);
  a.parts = parts ? parts.as<float>().data() : nullptr;
  a.counters = cuda.zero_counters(int64_t(b.tiles.size()));
  cuda.kernels().attention(on, a);
}

}  // namespace awq
