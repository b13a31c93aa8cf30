#pragma once
// Products of a matrix, in codes or 16 bits, and activations: weights are the left operand of mma, tokens the right
// one.
#include "kernels/cuda/codes.h"
#include "kernels/cuda/maps.h"
#include "kernels/cuda/shares.h"

namespace awq::cuda {

AWQ_DEVICE void put(const LinearArgs& a, int row, int token, float sum) {
  if (row >= a.w.rows || token >= a.x.tokens) return;
  if (a.w.bits == 16 || a.x.grouped) sum *= a.w.row_scales[row];
  a.y[token * a.y_row + row] = sum * a.x.scales[token] + (a.bias ? a.bias[row] : 0.f);
}

/// A block's product of several, and its place among those of the same.
AWQ_DEVICE int product_of(const LinearsArgs& all) {
  return block() < all.first[1] ? 0 : block() < all.first[2] ? 1 : 2;
}

constexpr int kFewWarps = 8;

/// Up to 8 Tokens8 <= 16 tokens: bound by reading codes. The warps of a block take units of the same 32 rows in turn,
/// straight from memory into registers, one unit ahead; activations come through the first-level cache.
template <class T, int Bits, int Tokens8>
AWQ_KERNEL void AWQ_BOUNDS(kFewWarps* kWarp, 2) few_tokens(AWQ_ARGUMENTS LinearsArgs all) {
  const int own_product = product_of(all), first = all.first[own_product];
  const LinearArgs& a = all.of[own_product];
  auto* sums = reinterpret_cast<float*>(shared_memory());  // [warps][32 rows][8 Tokens8]
  constexpr int kTile = kRowTile * 8 * Tokens8, kOwn = kTile / (kFewWarps * kWarp);
  auto* last = reinterpret_cast<int32_t*>(sums + kFewWarps * kTile);
  const int units = units_of(a.w), g = lane() / 4, t = lane() % 4;
  const auto* x = static_cast<const uint16_t*>(a.x.values);
  Shares shares(row_tiles_of(a.w), units, block() - first, all.first[own_product + 1] - first);
  // Where it is needed, not before: kept through the loop it spilled 8 bytes on sm_80.
  const auto partial = [&] { return a.partial + int64_t(first) * 2 * kFewWarps * kWarp * kOwn; };
  Share s;
  while (shares.next(s)) {
    const uint8_t* rows = a.w.codes + s.tile * units * 2 * kSixteenRows<Bits>;
    const auto read = [&](int unit, LaneCodes<Bits>(&c)[2]) {
      AWQ_UNROLL
      for (int r = 0; r < 2; ++r)
        c[r] = lane_codes<Bits>(rows + (int64_t(unit) * 2 + r) * kSixteenRows<Bits>, stream16);
    };
    Sums<Tokens8> sum;
    sum.clear();
    constexpr bool kAhead = Bits < 16;  // 16 bits: a unit is 8 loads of 16 bytes a lane, and two are too many registers
    LaneCodes<Bits> codes[2], ahead[2];
    if (kAhead && s.begin + warp() < s.end) read(s.begin + warp(), codes);
    after_earlier();  // every block has a share; codes were there before: what packed them is no product's neighbour
    AWQ_NO_UNROLL
    for (int unit = s.begin + warp(); unit < s.end; unit += kFewWarps) {
      if (!kAhead) read(unit, codes);
      if (kAhead && unit + kFewWarps < s.end) read(unit + kFewWarps, ahead);
      const auto chunk = [&](int n, int half) {
        const int token = 8 * n + g;
        if (token >= a.x.tokens) return Words4{{0, 0, 0, 0}};
        return load16(x + int64_t(token) * a.x.padded + unit * kUnitColumns + 32 * half + 8 * t);
      };
      multiply_unit<T, Bits, Tokens8>(a.w, a.x, codes, s.tile, unit, 0, chunk, sum);
      if constexpr (kAhead) codes[0] = ahead[0], codes[1] = ahead[1];
    }
    AWQ_UNROLL
    for (int r = 0; r < 2; ++r) AWQ_UNROLL
    for (int n = 0; n < Tokens8; ++n) AWQ_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int row = 16 * r + 8 * (i / 2) + g, token = 8 * n + 2 * t + i % 2;
      sums[warp() * kTile + token * kRowTile + row] = sum.v[r][n][i];
    }
    sync_block();
    float own[kOwn];
    AWQ_UNROLL
    for (int i = 0; i < kOwn; ++i) {
      own[i] = 0;
      for (int w = 0; w < kFewWarps; ++w) own[i] += sums[w * kTile + i * kFewWarps * kWarp + thread()];
    }
    if (shares.whole(s) || add_up<kOwn>(shares, s.tile, own, partial(), a.counters + s.tile, last)) {
      AWQ_UNROLL
      for (int i = 0; i < kOwn; ++i) {
        const int at = i * kFewWarps * kWarp + thread();
        put(a, int(s.tile) * kRowTile + at % kRowTile, at / kRowTile, own[i]);
      }
    }
    sync_block();  // before the next tile's sums, and its `last`
  }
}

constexpr int kTileWarps = 4, kTileRows = kTileWarps * kRowTile;

/// What a stage of many_tokens has in shared memory: codes of 128 rows of a unit, and the tokens' 64 columns of it.
template <int Bits, int Tokens>
struct Stage {
  static constexpr int kCodes = kTileWarps * 2 * kSixteenRows<Bits>, kBytes = kCodes + Tokens * kUnitColumns * 2;
};
// Three of the largest (16 bits, 128 tokens) are the 96 kB that a block may have on sm_86 and sm_89.
constexpr int kStages = 3;

/// Chunk c of eight columns of a token: odd tokens have their halves exchanged, so that the eight lanes that read
/// together (two tokens, four chunks) read all 32 banks.
AWQ_DEVICE int chunk_at(int token, int c) { return (token * 8 + (c ^ (token % 2 * 4))) * 16; }

/// Every tile of tokens is shared out in the same way. 128 rows x 8 Tokens8 Groups tokens a block, a warp for each 32
/// rows of each group of tokens; units come through shared memory, kStages - 1 ahead.
template <class T, int Bits, int Tokens8, int Groups>
AWQ_KERNEL void AWQ_BOUNDS(kTileWarps* Groups* kWarp, 1) many_tokens(AWQ_ARGUMENTS LinearsArgs all) {
  after_earlier();
  const int own_product = product_of(all), at = block() - all.first[own_product];
  const LinearArgs& a = all.of[own_product];
  constexpr int kTokens = 8 * Tokens8 * Groups, kThreads = kTileWarps * Groups * kWarp;
  using S = Stage<Bits, kTokens>;
  uint8_t* stages = shared_memory();
  auto* last = reinterpret_cast<int32_t*>(stages + kStages * S::kBytes);
  const int units = units_of(a.w), row_tiles = row_tiles_of(a.w), g = lane() / 4, t = lane() % 4;
  const int own_rows = warp() % kTileWarps, own_tokens = warp() / kTileWarps * 8 * Tokens8;
  const int token_tiles = (a.x.tokens + kTokens - 1) / kTokens,
            sharers = (all.first[own_product + 1] - all.first[own_product]) / token_tiles;
  const int token_tile = at % token_tiles, token0 = token_tile * kTokens;
  float* partial = a.partial + (int64_t(all.first[own_product]) + token_tile * sharers) * 2 * kThreads * 8 * Tokens8;
  const auto* x = static_cast<const uint16_t*>(a.x.values);
  Shares shares((row_tiles + kTileWarps - 1) / kTileWarps, units, at / token_tiles, sharers);
  Share s;
  while (shares.next(s)) {
    const int64_t tile0 = s.tile * kTileWarps;
    const auto issue = [&](int unit) {
      if (unit < s.end) {
        uint8_t* to = stages + (unit - s.begin) % kStages * S::kBytes;
        constexpr int kRowsBytes = 2 * kSixteenRows<Bits>;
        for (int i = thread() * 16; i < S::kCodes; i += kThreads * 16) {
          const int64_t tile = tile0 + i / kRowsBytes;
          const bool valid = tile < row_tiles;
          copy_async(to + i, a.w.codes + ((valid ? tile : 0) * units + unit) * kRowsBytes + i % kRowsBytes, valid);
        }
        for (int i = thread(); i < kTokens * 8; i += kThreads) {
          const int token = i / 8, c = i % 8;
          const bool valid = token0 + token < a.x.tokens;
          copy_async(to + S::kCodes + chunk_at(token, c),
                     x + int64_t(valid ? token0 + token : 0) * a.x.padded + unit * kUnitColumns + 8 * c, valid);
        }
      }
      commit_copies();
    };
    Sums<Tokens8> sum;
    sum.clear();
    AWQ_UNROLL
    for (int i = 0; i < kStages - 1; ++i) issue(s.begin + i);
    AWQ_NO_UNROLL
    for (int unit = s.begin; unit < s.end; ++unit) {
      wait_copies<kStages - 2>();
      sync_block();  // the unit is here, and nobody reads the one before it any more
      issue(unit + kStages - 1);
      const uint8_t* stage = stages + (unit - s.begin) % kStages * S::kBytes;
      if (tile0 + own_rows < row_tiles) {
        LaneCodes<Bits> codes[2];
        AWQ_UNROLL
        for (int r = 0; r < 2; ++r)
          codes[r] = lane_codes<Bits>(stage + (2 * own_rows + r) * kSixteenRows<Bits>, load16);
        const auto chunk = [&](int n, int half) {
          return load16(stage + S::kCodes + chunk_at(own_tokens + 8 * n + g, 4 * half + t));
        };
        multiply_unit<T, Bits, Tokens8>(a.w, a.x, codes, tile0 + own_rows, unit, token0 + own_tokens, chunk, sum);
      }
    }
    wait_copies<0>();
    sync_block();
    auto& own = reinterpret_cast<float(&)[8 * Tokens8]>(sum.v);
    if (shares.whole(s) ||
        add_up<8 * Tokens8>(shares, s.tile, own, partial, a.counters + s.tile * token_tiles + token_tile, last)) {
      AWQ_UNROLL
      for (int r = 0; r < 2; ++r) AWQ_UNROLL
      for (int n = 0; n < Tokens8; ++n) AWQ_UNROLL
      for (int i = 0; i < 4; ++i)
        put(a, int(tile0 + own_rows) * kRowTile + 16 * r + 8 * (i / 2) + g, token0 + own_tokens + 8 * n + 2 * t + i % 2,
            sum.v[r][n][i]);
    }
    sync_block();
  }
}

/// The mma's left registers of one step, decoded: (code * scale + offset) / row_scale, rows g and g + 8.
template <class T, int Bits>
AWQ_DEVICE void decoded_step(const LaneCodes<Bits>& codes, int step, const Grid (&grid)[2], const float (&inverse)[2],
                             uint32_t (&to)[4]) {
  step_codes<T, Bits>(codes, step, to);
  AWQ_UNROLL
  for (int k = 0; k < 4 && Bits < 16; ++k) {
    const Grid& q = grid[k % 2];
    const auto value = [&](float code) { return fused(code, q.scale, q.offset) * inverse[k % 2]; };
    to[k] = T::pack(value(T::low(to[k])), value(high<T>(to[k])));
  }
}

struct DecodeArgs {
  Matrix w;
  uint8_t* slice;  // codes of a 16-bit matrix
  int64_t first_tile, tiles;
};

/// Rows of codes to a 16-bit matrix of (code * scale + offset) / row_scale: a warp for each sixteen rows of a unit.
template <class T, int Bits>
AWQ_KERNEL void AWQ_BOUNDS(256, 2) decode_rows(const DecodeArgs a) {
  after_earlier();
  const int units = units_of(a.w), g = lane() / 4;
  const int64_t pieces = a.tiles * units * 2, step = int64_t(blocks()) * (threads() / kWarp);
  for (int64_t i = int64_t(block()) * (threads() / kWarp) + warp(); i < pieces; i += step) {
    const int64_t tile = a.first_tile + i / (2 * units);
    const int unit = int(i / 2 % units), r = int(i % 2);
    const auto codes = lane_codes<Bits>(a.w.codes + (a.first_tile * units * 2 + i) * kSixteenRows<Bits>, stream16);
    float inverse[2];
    AWQ_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int64_t row = tile * kRowTile + 16 * r + 8 * h + g;
      inverse[h] = 1 / (row < a.w.rows ? a.w.row_scales[row] : 1.f);  // a power of two: exact
    }
    AWQ_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int group = group_of(a.w, unit * kUnitColumns + 32 * half);
      const Grid grid[2] = {grid_at(a.w, tile, group, 16 * r + g), grid_at(a.w, tile, group, 16 * r + 8 + g)};
      AWQ_UNROLL
      for (int p = 0; p < 2; ++p) {
        Words4 out;
        decoded_step<T, Bits>(codes, 2 * half + p, grid, inverse, out.w);
        store16(a.slice + i * kSixteenRows<16> + ((2 * half + p) * kWarp + lane()) * 16, out);
      }
    }
  }
}

/// Float matrices, and float arithmetic: a warp for each row, eight tokens at a time, columns in the order of lanes.
AWQ_KERNEL void AWQ_BOUNDS(256, 2) float_rows(const LinearArgs a) {
  after_earlier();
  constexpr int kTokens = 8;
  const int per_block = threads() / kWarp;
  for (int64_t row = int64_t(block()) * per_block + warp(); row < a.w.rows; row += int64_t(blocks()) * per_block)
    for (int token = 0; token < a.x.tokens; token += kTokens) {
      float sum[kTokens] = {};
      for (int c = lane(); c < a.w.cols; c += kWarp) {
        const float w = a.w.dense[row * a.w.cols + c];
        AWQ_UNROLL
        for (int n = 0; n < kTokens; ++n)
          if (token + n < a.x.tokens) sum[n] = fused(w, a.x.x[int64_t(token + n) * a.w.cols + c], sum[n]);
      }
      AWQ_UNROLL
      for (int n = 0; n < kTokens; ++n) {
        const float all = warp_sum(sum[n]);
        if (lane() == 0 && token + n < a.x.tokens)
          a.y[(token + n) * a.y_row + row] = all + (a.bias ? a.bias[row] : 0.f);
      }
    }
}

/// Of values up to `most`: the power of two that brings them into [2^14, 2^15), or 1 if they are 0 or not finite.
AWQ_DEVICE float f16_scale(float most) {
  const uint32_t exponent = bits_of(most) >> 23 & 0xff;
  if (most == 0 || exponent == 0xff) return 1;
  const int e = int(exponent) - 127 - 14;
  return float_of(uint32_t((e < -110 ? -110 : e) + 127) << 23);
}

/// A block for each token.
template <class T>
AWQ_KERNEL void AWQ_BOUNDS(256, 2) prepare_tokens(const PrepareArgs a) {
  after_earlier();
  auto* scratch = reinterpret_cast<float*>(shared_memory());
  const int64_t token = block();
  const auto value = [&](int c) {
    if (c >= a.to.cols) return 0.f;
    const int from = a.order ? a.order[c] : c;
    const int64_t at = token * a.to.cols + from;
    float v = a.mapped ? mapped(a.map, 0, 0, a.x[at]) : a.x[at];
    if (a.mapped && a.up) v *= a.up[at];
    return a.factors ? v * a.factors[from] : v;
  };
  float most = 0;
  for (int c = thread(); c < a.to.cols; c += threads()) {
    const float v = value(c);
    most = largest(most, v < 0 ? -v : v);
    if (a.copy) a.copy[token * a.to.cols + c] = v;
  }
  most = over_block(most, scratch, [](float p, float q) { return largest(p, q); });
  const float scale = T::kHalf == Half::f16 ? f16_scale(most) : 1.f, inverse = 1 / scale;
  if (thread() == 0) a.to.scales[token] = scale;
  const int sums = a.to.padded / kSumColumns;
  auto* out = static_cast<uint16_t*>(a.to.values) + token * a.to.padded;
  for (int i = warp(); i < sums; i += threads() / kWarp) {
    const int c = i * kSumColumns + lane();
    const uint32_t rounded = T::pack(value(c) * inverse, 0);
    out[a.to.grouped ? i * kSumColumns + grouped_column(lane()) : c] = uint16_t(rounded);
    const float sum = warp_sum(T::low(rounded));
    if (lane() == 0) a.to.sums[token * sums + i] = sum;
  }
}

/// A thread for each word: four columns of rows g and g + 8.
template <int Bits>
AWQ_KERNEL void AWQ_BOUNDS(256, 2) pack_code_words(const PackCodesArgs a) {
  after_earlier();
  const int units = units_of(a.to), columns4 = (a.width + 3) / 4, rows16 = (a.count + 15) / 16;
  const int64_t words = int64_t(rows16) * 8 * columns4;
  for (int64_t i = int64_t(block()) * threads() + thread(); i < words; i += int64_t(blocks()) * threads()) {
    const int column = int(i % columns4) * 4, g = int(i / columns4 % 8), r16 = int(i / columns4 / 8);
    const auto code = [&](int h, int k) -> uint32_t {
      const int row = r16 * 16 + 8 * h + g, c = column + k;
      return row < a.count && c < a.width ? a.codes[int64_t(row) * a.width + c] : 0;
    };
    const int at = a.col + column, in_unit = at % kUnitColumns, step = in_unit / 32 * 2 + in_unit % 8 / 4,
              t = in_unit % 32 / 8;
    const int64_t rows = (a.row + r16 * 16) / 16;
    uint8_t* sixteen = a.to.codes + ((rows / 2 * units + at / kUnitColumns) * 2 + rows % 2) * kSixteenRows<Bits>;
    const int own = 4 * g + t;
    if constexpr (Bits == 4) {
      uint32_t word = 0;
      for (int p = 0; p < 4; ++p)  // registers: rows g, g + 8 of the first two columns, then of the others
        word |= code(p % 2, p / 2 * 2) << (4 * p) | code(p % 2, p / 2 * 2 + 1) << (4 * p + 16);
      reinterpret_cast<uint32_t*>(sixteen)[own * 4 + step] = word;
    } else {
      for (int w = 0; w < 2; ++w) {
        uint32_t word = 0;
        for (int p = 0; p < 2; ++p) word |= code(p, 2 * w) << (8 * p) | code(p, 2 * w + 1) << (8 * p + 16);
        const int all = 2 * step + w;
        reinterpret_cast<uint32_t*>(sixteen)[(all / 4 * kWarp + own) * 4 + all % 4] = word;
      }
    }
  }
}

AWQ_DEVICE float stored_float(const void* p, int type, int64_t i) {
  if (type == 0) return static_cast<const float*>(p)[i];
  const uint16_t v = static_cast<const uint16_t*>(p)[i];
  return type == 1 ? F16::low(v) : Bf16::low(v);
}
template <class T>
AWQ_KERNEL void AWQ_BOUNDS(256, 2) pack_float_words(const PackFloatsArgs a) {
  after_earlier();
  const int units = units_of(a.to), columns4 = (a.width + 3) / 4, rows16 = (a.count + 15) / 16;
  const int64_t words = int64_t(rows16) * 8 * columns4;
  for (int64_t i = int64_t(block()) * threads() + thread(); i < words; i += int64_t(blocks()) * threads()) {
    const int column = int(i % columns4) * 4, g = int(i / columns4 % 8), r16 = int(i / columns4 / 8);
    const auto value = [&](int h, int k) {
      const int row = r16 * 16 + 8 * h + g, c = column + k;
      if (row >= a.count || c >= a.width) return 0.f;
      return stored_float(a.values, a.type, int64_t(row) * a.width + c) / a.to.row_scales[a.row + row];
    };
    const int at = a.col + column, in_unit = at % kUnitColumns, step = in_unit / 32 * 2 + in_unit % 8 / 4,
              t = in_unit % 32 / 8;
    const int64_t rows = (a.row + r16 * 16) / 16;
    uint8_t* sixteen = a.to.codes + ((rows / 2 * units + at / kUnitColumns) * 2 + rows % 2) * kSixteenRows<16>;
    Words4 out;
    for (int p = 0; p < 4; ++p) out.w[p] = T::pack(value(p % 2, p / 2 * 2), value(p % 2, p / 2 * 2 + 1));
    store16(sixteen + (step * kWarp + 4 * g + t) * 16, out);
  }
}

}  // namespace awq::cuda
