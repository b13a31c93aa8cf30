#pragma once
// How the other kernels are started, and the table of them all: see start_linear.h.
#include "kernels/cuda/attention.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/start_linear.h"

namespace awq::cuda {
namespace {

void norm(void* on, const NormArgs& a) {
  start(on, int(std::min<int64_t>(a.runs, 1 << 20)), a.width <= 256 ? 64 : 256, 32, norm_runs, a);
}
void rope(void* on, const RopeArgs& a) {
  start(on, blocks_for(a.tokens * (a.width / a.head_dim) * a.half), 256, 0, rope_pairs, a);
}
void join(void* on, const JoinArgs& a) {
  start(on, blocks_for(a.heads_in_all * (a.part + a.rest)), 256, 0, join_heads, a);
}
void map(void* on, const MapArgs& a) { start(on, blocks_for(a.n), 256, 0, map_elements, a); }
void rows(void* on, const RowsArgs& a) { start(on, blocks_for(a.rows * a.width), 256, 0, move_rows, a); }
void top(void* on, const TopArgs& a) { start(on, a.rows * a.pieces, 256, 64, top_pieces, a); }

template <class F>
void with_cache(KvType t, const F& f) {
  if (t == KvType::f16)
    f(CacheF16{});
  else if (t == KvType::bf16)
    f(CacheBf16{});
  else if (t == KvType::i8)
    f(CacheI8{});
  else
    f(CacheF8{});
}

void kv_store(void* on, const KvStoreArgs& a) {
  with_cache(a.kv.type, [&](auto cache) {
    start(on, blocks_for(int64_t(a.tokens) * a.kv.heads * kWarp), 256, 0, store_heads<decltype(cache)>, a);
  });
}

void heads(void* on, const HeadsArgs& a) {
  const int64_t warps = int64_t(a.store.tokens) * (a.heads + a.store.kv.heads);
  with_cache(a.store.kv.type, [&](auto cache) {
    start(on, int(std::min<int64_t>(up(warps, kHeadWarps), 4096)), kHeadWarps * kWarp,
          kHeadWarps * a.store.kv.head_dim * int(sizeof(float)), ready_heads<decltype(cache)>, a);
  });
}

template <class C, int MaxValue>
void start_attention(void* on, const AttentionArgs& a) {
  const int queries = kAttentionRows * a.kv.dim * 2 * C::kParts;
  if (a.unit_count)
    start(on, a.unit_count, kUnitWarps * kWarp,
          queries + kUnitWarps * kAttentionRows * (a.kv.padded_value + 2) * int(sizeof(float)) + 16,
          split_tiles<C, MaxValue>, a);
  if (a.whole_count)
    start(on, int(up(a.whole_count, kUnitWarps)), kUnitWarps * kWarp, kUnitWarps * queries, whole_tiles<C, MaxValue>,
          a);
}

void attention(void* on, const AttentionArgs& a) {
  with_cache(a.kv.type, [&](auto cache) {
    using C = decltype(cache);
    if (a.kv.padded_value <= 64)
      start_attention<C, 64>(on, a);
    else if (a.kv.padded_value <= 128)
      start_attention<C, 128>(on, a);
    else
      start_attention<C, kMaxValueDim>(on, a);
  });
}

constexpr Kernels kTable = {.linear = linear,
                            .prepare = prepare,
                            .pack_codes = pack_codes,
                            .pack_floats = pack_floats,
                            .norm = norm,
                            .rope = rope,
                            .join = join,
                            .map = map,
                            .rows = rows,
                            .top = top,
                            .kv_store = kv_store,
                            .heads = heads,
                            .attention = attention};

}  // namespace
}  // namespace awq::cuda
