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

template <class T, int Bits, int Tokens8>
void start_few(void* on, const LinearArgs& a) {
  const int64_t units = up(a.w.rows, kRowTile) * up(a.w.cols, kUnitColumns);
  const auto blocks = int(std::clamp<int64_t>(units / kFewWarps, 1, 2 * a.multiprocessors));
  const int shared = kFewWarps * kRowTile * 8 * Tokens8 * int(sizeof(float)) + 16;
  start(on, blocks, kFewWarps * kWarp, shared, few_tokens<T, Bits, Tokens8>, a);
}

template <class T, int Bits, int Tokens8, int Groups>
void start_many(void* on, const LinearArgs& a) {
  constexpr int kTokens = 8 * Tokens8 * Groups;
  const int64_t units = up(a.w.rows, kTileRows) * up(a.w.cols, kUnitColumns);
  const auto sharers = int(std::clamp<int64_t>(units / 4, 1, a.multiprocessors));
  const int shared = kStages * Stage<Bits, kTokens>::kBytes + 16;
  start(on, sharers * int(up(a.x.tokens, kTokens)), kTileWarps * Groups * kWarp, shared,
        many_tokens<T, Bits, Tokens8, Groups>, a);
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
void start_product(void* on, const LinearArgs& a);

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
    start_product<T, 16>(on, part);
  }
}

/// The arithmetic follows `batch`: among more than kFewTokens a few tokens are multiplied as many are.
template <class T, int Bits>
void start_product(void* on, const LinearArgs& a) {
  if (a.x.grouped) return start_groups<T, Bits>(on, a);
  if (a.batch <= kFewTokens) return a.x.tokens <= 8 ? start_few<T, Bits, 1>(on, a) : start_few<T, Bits, 2>(on, a);
  constexpr int kCodes = Bits < 16 ? Bits : 4;  // of what is decoded; never 16
  if (Bits < 16 && a.batch > kMaxDirect) return start_slices<T, kCodes>(on, a);
  if (a.x.tokens <= 32) return start_many<T, Bits, 4, 1>(on, a);
  // Two warps decode the same rows: 64 tokens a warp are 128 sums of codes and grids, and do not fit in registers.
  if (a.x.tokens <= kMaxDirect) return start_many<T, Bits, 4, 2>(on, a);
  if constexpr (Bits == 16) start_many<T, 16, 8, 2>(on, a);
}

void linear(void* on, const LinearArgs& a) {
  if (a.w.dense)
    return start(on, int(std::min<int64_t>(up(a.w.rows, 8), 8 * a.multiprocessors)), 256, 0, float_rows, a);
  with_half(a.x.half, [&](auto half) {
    with_bits(a.w.bits, [&](auto bits) { start_product<decltype(half), decltype(bits)::value>(on, a); });
  });
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
