#pragma once
// How the kernels of products are started. Whoever includes this has `start` for the GPU or for the executor.
#include <algorithm>

#include "kernels/cuda/hopper.h"

namespace awq::cuda {
namespace {

template <class F>
void with_half(Half h, const F& f) {
  if (h == Half::f16)
    f(F16{});
  else
    f(Bf16{});
}
template <class F>
void with_bits(int bits, const F& f) {
  if (bits == 4)
    f(std::integral_constant<int, 4>{});
  else if (bits == 8)
    f(std::integral_constant<int, 8>{});
  else
    f(std::integral_constant<int, 16>{});
}

int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to; }

/// Some products' arguments with their blocks: `most` for all of them by their units of `tile_rows` rows, of which a
/// block has at least `each`; times `token_tiles`.
LinearsArgs shared_out(const LinearArgs* a, int count, int tile_rows, int each, int64_t most, int64_t token_tiles) {
  const auto units = [&](int i) { return up(a[i].w.rows, tile_rows) * up(a[i].w.cols, kUnitColumns); };
  int64_t all = 0;
  for (int i = 0; i < count; ++i) all += units(i);
  LinearsArgs l{};
  l.count = count;
  for (int i = 0; i < kMostTogether; ++i) {
    l.first[i + 1] = l.first[i];
    if (i >= count) continue;
    l.of[i] = a[i];
    const int64_t own = std::max<int64_t>(most * units(i) / all, 1);
    l.first[i + 1] += int32_t(std::clamp<int64_t>(units(i) / each, 1, own) * token_tiles);
  }
  return l;
}

template <class T, int Bits, int Tokens8>
void start_few(void* on, const LinearArgs* a, int count) {
  const LinearsArgs l = shared_out(a, count, kRowTile, kFewWarps, 2 * a->multiprocessors, 1);
  const int shared = kFewWarps * kRowTile * 8 * Tokens8 * int(sizeof(float)) + 16;
  start(on, l.first[kMostTogether], kFewWarps * kWarp, shared, few_tokens<T, Bits, Tokens8>, l);
}

template <class T, int Bits, int Tokens8, int Groups>
void start_many(void* on, const LinearArgs* a, int count) {
  constexpr int kTokens = 8 * Tokens8 * Groups;
  const LinearsArgs l = shared_out(a, count, kTileRows, 4, a->multiprocessors, up(a->x.tokens, kTokens));
  const int shared = kStages * Stage<Bits, kTokens>::kBytes + 16;
  start(on, l.first[kMostTogether], kTileWarps * Groups * kWarp, shared, many_tokens<T, Bits, Tokens8, Groups>, l);
}

template <class T, int Bits>
void start_groups(void* on, const LinearArgs& a) {
  const int64_t units = up(a.w.rows, kTileRows) * up(a.w.cols, kUnitColumns);
  const auto sharers = int(std::clamp<int64_t>(units / 4, 1, a.multiprocessors));
  start(on, sharers * int(up(a.x.tokens, kGroupTokens)), kGroupWarps * kWarp,
        kGroupStages * GroupStage<Bits>::kBytes + 16, group_tokens<T, Bits>, a);
}

Matrix decoded_rows(const LinearArgs& a, int32_t row, int32_t rows) {
  Matrix m;
  m.codes = static_cast<uint8_t*>(a.slice);
  m.row_scales = a.w.row_scales + row;
  m.rows = rows;
  m.cols = m.group = a.w.cols;
  m.groups = 1;
  m.bits = 16;
  m.half_scales = false;
  m.half = a.x.half;
  return m;
}

template <class T, int Bits>
void start_product(void* on, const LinearArgs* a, int count);

/// A slice of rows at a time is decoded to 16 bits, which stay in the second-level cache, and multiplied.
template <class T, int Bits>
void start_slices(void* on, const LinearArgs& a) {
  for (int32_t row = 0; row < a.w.rows; row += a.slice_rows) {
    const int32_t rows = std::min(a.slice_rows, a.w.rows - row);
    const DecodeArgs d{a.w, static_cast<uint8_t*>(a.slice), row / kRowTile, up(rows, kRowTile)};
    start(on, int(std::min<int64_t>(d.tiles * 2, 8 * a.multiprocessors)), 256, 0, decode_rows<T, Bits>, d);
    LinearArgs part = a;
    part.w = decoded_rows(a, row, rows);
    part.bias = a.bias ? a.bias + row : nullptr;
    part.y = a.y + row;
    start_product<T, 16>(on, &part, 1);
  }
}

/// The arithmetic follows `batch`: among more than kFewTokens a few tokens are multiplied as many are.
template <class T, int Bits>
void start_product(void* on, const LinearArgs* a, int count) {
  const int tokens = a->x.tokens;
  if (a->x.grouped) return start_groups<T, Bits>(on, *a);
  if (a->batch <= kFewTokens)
    return tokens <= 8 ? start_few<T, Bits, 1>(on, a, count) : start_few<T, Bits, 2>(on, a, count);
  constexpr int kCodes = Bits < 16 ? Bits : 4;  // of what is decoded; never 16
  if (Bits < 16 && a->batch > kMaxDirect) return start_slices<T, kCodes>(on, *a);
  if (tokens <= 32) return start_many<T, Bits, 4, 1>(on, a, count);
  // Two warps decode the same rows: 64 tokens a warp are 128 sums of codes and grids, and do not fit in registers.
  if (tokens <= kMaxDirect) return start_many<T, Bits, 4, 2>(on, a, count);
  if constexpr (Bits == 16) start_many<T, 16, 8, 2>(on, a, count);
}

void start_linear(void* on, const LinearArgs* a, int count) {
  if (a->w.dense)
    return start(on, int(std::min<int64_t>(up(a->w.rows, 8), 8 * a->multiprocessors)), 256, 0, float_rows, *a);
  with_half(a->x.half, [&](auto half) {
    with_bits(a->w.bits, [&](auto bits) { start_product<decltype(half), decltype(bits)::value>(on, a, count); });
  });
}

/// How many of the products begin together.
int first_together(const LinearArgs* a, int count) {
  if (a->w.dense || a->batch > kMaxDirect) return 1;
  int n = 1;
  while (n < std::min<int>(count, kMostTogether) && a[n].w.bits == a->w.bits && !a[n].w.dense) ++n;
  return n;
}

void linear(void* on, const LinearsArgs& a) {
  for (int at = 0, n = 0; at < a.count; at += n)
    start_linear(on, a.of + at, n = first_together(a.of + at, a.count - at));
}

void prepare(void* on, const PrepareArgs& a) {
  with_half(a.to.half, [&](auto half) { start(on, a.to.tokens, 256, 32, prepare_tokens<decltype(half)>, a); });
}

int blocks_for(int64_t threads) { return int(std::clamp<int64_t>(up(threads, 256), 1, 4096)); }

void pack_codes(void* on, const PackCodesArgs& a) {
  const int blocks = blocks_for(up(a.count, 16) * 8 * up(a.width, 4));
  if (a.to.bits == 4)
    start(on, blocks, 256, 0, pack_code_words<4>, a);
  else
    start(on, blocks, 256, 0, pack_code_words<8>, a);
}

void pack_floats(void* on, const PackFloatsArgs& a) {
  const int blocks = blocks_for(up(a.count, 16) * 8 * up(a.width, 4));
  with_half(a.to.half, [&](auto half) { start(on, blocks, 256, 0, pack_float_words<decltype(half)>, a); });
}

}  // namespace
}  // namespace awq::cuda
