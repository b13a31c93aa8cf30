#include "model/cuda_attention.h"

#include <algorithm>
#include <numbers>

namespace awq {
namespace {

/// Sequences with so few new tokens read their pages in parallel: nothing else would give the GPU enough to do.
constexpr int kSplitTokens = 8;

}  // namespace

CudaBatch::CudaBatch(Batch batch, const AttentionSpec& spec) {
  for (const Sequence& s : batch) add(s);
  for (const bool split : {false, true}) {
    for (size_t i = 0; i < batch.size(); ++i)
      if (split == (batch[i].tokens <= kSplitTokens)) add_tiles(batch[i], int32_t(i), spec, split);
    if (!split) whole = int32_t(tiles.size());
  }
}

void CudaBatch::add(const Sequence& s) {
  auto& kv = static_cast<CudaKvCache&>(*s.kv);
  kv.reserve(int64_t(s.first) + s.tokens);
  sequences.push_back({int32_t(sequence_of.size()), s.tokens, s.first, int32_t(pages.size())});
  sequence_of.insert(sequence_of.end(), size_t(s.tokens), int32_t(sequences.size() - 1));
  for (const Tensor& page : kv.pages()) pages.push_back(reinterpret_cast<uint8_t*>(Tensor(page).data()));
}

void CudaBatch::add_tiles(const Sequence& s, int32_t index, const AttentionSpec& spec, bool split) {
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

CudaTables tables_of(CudaArrays& arrays, const CudaBatch& b) {
  return {.pages = arrays.at(b.pages),
          .sequences = arrays.at(b.sequences),
          .sequence_of = arrays.at(b.sequence_of),
          .tiles = arrays.at(b.tiles),
          .units = arrays.at(b.units),
          .tokens = int32_t(b.sequence_of.size()),
          .tile_count = int32_t(b.tiles.size()),
          .whole_count = b.whole,
          .unit_count = int32_t(b.units.size())};
}

std::vector<float> times_log2e(std::span<const float> v) {
  std::vector<float> out;
  for (float x : v) out.push_back(float(double(x) * std::numbers::log2e));
  return out;
}

const std::byte* CudaArrays::find(std::span<const std::byte> bytes) {
  if (bytes.empty()) return nullptr;
  const auto found = std::ranges::find_if(entries_, [&](const Entry& e) { return std::ranges::equal(e.host, bytes); });
  if (found != entries_.end()) {
    entries_.splice(entries_.begin(), entries_, found);
  } else {
    entries_.push_front({{bytes.begin(), bytes.end()}, memory_.upload(bytes)});
    if (entries_.size() > most_) entries_.pop_back();
  }
  return std::as_const(entries_.front().device).data();
}

cuda::KvStoreArgs kv_store_of(const CudaTables& t, const CudaHeads& h) {
  return {h.kv, h.k.as<float>().data(), h.v.as<float>().data(), t.pages, t.sequences, t.sequence_of, t.tokens};
}

void cuda_attention(CudaContext& cuda, const CudaTables& t, const CudaHeads& h, bool stored, Tensor& y) {
  CudaMemory& memory = *cuda.memory;
  void* on = memory.device().stream();
  if (!stored && h.k) cuda.kernels().kv_store(on, kv_store_of(t, h));
  Tensor parts;
  if (t.unit_count) parts = memory.empty({t.unit_count, cuda::kAttentionRows, h.kv.padded_value + 2}, DType::f32);
  cuda::AttentionArgs a{};
  a.kv = h.kv;
  a.q = h.q.as<float>().data();
  a.y = y.as<float>().data();
  a.table = t.pages;
  a.sequences = t.sequences;
  a.tiles = t.tiles;
  a.units = t.units;
  a.whole_count = t.whole_count;
  a.unit_count = t.unit_count;
  a.share = h.spec.heads / h.spec.kv_heads;
  a.window = h.spec.window.value_or(0);
  a.scale = float(double(h.spec.score_scale()) * std::numbers::log2e);
  a.cap = float(double(h.spec.soft_cap) * std::numbers::log2e);
  a.slopes = h.slopes;
  a.sinks = h.sinks;
  a.parts = parts ? parts.as<float>().data() : nullptr;
  a.counters = cuda.zero_counters(t.tile_count);
  cuda.kernels().attention(on, a);
}

}  // namespace awq
