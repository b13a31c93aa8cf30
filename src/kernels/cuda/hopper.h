#pragma once
// Products of more than kMaxDirect tokens where four warps multiply together (wgmma, sm_90a): weights are decoded into
// the registers of the left operand, tokens lie in shared memory as the right one.
#include "kernels/cuda/linear.h"

namespace awq::cuda {

constexpr int kGroupTokens = 128, kGroupWarps = 8, kGroupStages = 4;
/// Columns 8 c + (0 .. 7) of all tokens, after each other; 16 bytes apart from a multiple of 128, so that eight threads
/// which bring a token's columns write to all banks.
constexpr int kGroupChunk = kGroupTokens * 16 + 16;

template <int Bits>
struct GroupStage {
  static constexpr int kCodes = kTileWarps * 2 * kSixteenRows<Bits>, kBytes = kCodes + 8 * kGroupChunk;
};

/// A warp's sixteen rows of a unit as left operands of four steps, decoded.
template <class T, int Bits>
AWQ_DEVICE void decode_unit(const Matrix& w, const uint8_t* stage, int64_t tile, int unit, const float (&inverse)[2],
                            uint32_t (&to)[4][4]) {
  const int r = warp() % 2, g = lane() / 4;
  const auto codes = lane_codes<Bits>(stage + warp() * kSixteenRows<Bits>, load16);
  AWQ_UNROLL
  for (int half = 0; half < 2; ++half) {
    Grid grid[2] = {};
    if constexpr (Bits < 16) {
      const int group = group_of(w, unit * kUnitColumns + 32 * half);
      AWQ_UNROLL
      for (int h = 0; h < 2; ++h) grid[h] = grid_at(w, tile, group, 16 * r + 8 * h + g);
    }
    AWQ_UNROLL
    for (int p = 0; p < 2; ++p) decoded_step<T, Bits>(codes, 2 * half + p, grid, inverse, to[2 * half + p]);
  }
}

/// 128 rows x 128 tokens a block, 64 rows for each four warps. Every tile of tokens is shared out in the same way. Four
/// warps decode while others multiply: two blocks fit a multiprocessor.
template <class T, int Bits>
AWQ_KERNEL void AWQ_BOUNDS(kGroupWarps* kWarp, 2) group_tokens(const LinearArgs a) {
  after_earlier();
  if constexpr (kHasWarpgroups) {
    using S = GroupStage<Bits>;
    constexpr int kThreads = kGroupWarps * kWarp;
    uint8_t* stages = shared_memory();
    auto* last = reinterpret_cast<int32_t*>(stages + kGroupStages * S::kBytes);
    const int units = units_of(a.w), row_tiles = row_tiles_of(a.w), g = lane() / 4, t = lane() % 4;
    const int token_tiles = (a.x.tokens + kGroupTokens - 1) / kGroupTokens, sharers = blocks() / token_tiles;
    const int token_tile = block() % token_tiles, token0 = token_tile * kGroupTokens;
    float* partial = a.partial + int64_t(token_tile) * sharers * 2 * kThreads * 64;
    const auto* x = static_cast<const uint16_t*>(a.x.values);
    Shares shares((row_tiles + kTileWarps - 1) / kTileWarps, units, block() / token_tiles, sharers);
    Share s;
    while (shares.next(s)) {
      const int64_t tile0 = s.tile * kTileWarps, wanted = tile0 + warp() / 2;
      const int64_t tile = wanted < row_tiles ? wanted : row_tiles - 1;  // rows past the last are computed, and not put
      float inverse[2];
      AWQ_UNROLL
      for (int h = 0; h < 2; ++h) {
        const int64_t row = tile * kRowTile + warp() % 2 * 16 + 8 * h + g;
        inverse[h] = Bits < 16 && row < a.w.rows ? 1 / a.w.row_scales[row] : 1.f;  // a power of two: exact
      }
      const auto issue = [&](int unit) {
        if (unit < s.end) {
          uint8_t* to = stages + (unit - s.begin) % kGroupStages * S::kBytes;
          constexpr int kRowsBytes = 2 * kSixteenRows<Bits>;
          for (int i = thread() * 16; i < S::kCodes; i += kThreads * 16) {
            const int64_t from = tile0 + i / kRowsBytes;
            const bool valid = from < row_tiles;
            copy_async(to + i, a.w.codes + ((valid ? from : 0) * units + unit) * kRowsBytes + i % kRowsBytes, valid);
          }
          for (int i = thread(); i < kGroupTokens * 8; i += kThreads) {
            const int token = i / 8, c = i % 8;
            const bool valid = token0 + token < a.x.tokens;
            copy_async(to + S::kCodes + c * kGroupChunk + token * 16,
                       x + int64_t(valid ? token0 + token : 0) * a.x.padded + unit * kUnitColumns + 8 * c, valid);
          }
        }
        commit_copies();
      };
      float sum[64];
      AWQ_UNROLL
      for (int i = 0; i < 64; ++i) sum[i] = 0;
      AWQ_UNROLL
      for (int i = 0; i < kGroupStages - 1; ++i) issue(s.begin + i);
      AWQ_NO_UNROLL
      for (int unit = s.begin; unit < s.end; ++unit) {
        wait_copies<kGroupStages - 2>();
        fence_products();
        sync_block();  // the unit is here, and nobody reads the one before it any more
        issue(unit + kGroupStages - 1);
        const uint8_t* stage = stages + (unit - s.begin) % kGroupStages * S::kBytes;
        uint32_t weights[4][4];
        decode_unit<T, Bits>(a.w, stage, tile, unit, inverse, weights);
        begin_products(weights);
        AWQ_UNROLL
        for (int step = 0; step < 4; ++step)
          T::multiply_group(sum, weights[step],
                            tile_descriptor(stage + S::kCodes + 2 * step * kGroupChunk, kGroupChunk, 128));
        commit_products();
        wait_products();
      }
      wait_copies<0>();
      sync_block();
      if (shares.whole(s) ||
          add_up<64>(shares, s.tile, sum, partial, a.counters + s.tile * token_tiles + token_tile, last)) {
        AWQ_UNROLL
        for (int n = 0; n < 16; ++n) AWQ_UNROLL
        for (int i = 0; i < 4; ++i)
          put(a, int(wanted) * kRowTile + warp() % 2 * 16 + 8 * (i / 2) + g, token0 + 8 * n + 2 * t + i % 2,
              sum[4 * n + i]);
      }
      sync_block();
    }
  }
}

}  // namespace awq::cuda
