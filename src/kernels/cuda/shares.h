#pragma once
// How the units of a product's tiles are shared out among blocks ("stream-K": Osama et al. 2023, arXiv 2301.03598): a
// block takes a run of units that may begin and end inside tiles, so that all blocks have equally much whatever the
// shape. Who has a part of a tile leaves it in a slot of its own; the last to come adds them up in the order of blocks.
#include "kernels/cuda/lanes.h"

namespace awq::cuda {

struct Share {
  int64_t tile;
  int32_t begin, end;  // units
};

class Shares {
 public:
  AWQ_DEVICE Shares(int64_t tiles, int32_t units) : units_(units), total_(tiles * units), at_(first_of(block())) {}
  AWQ_DEVICE bool next(Share& s) {
    const int64_t stop = first_of(block() + 1);
    if (at_ >= stop) return false;
    s.tile = at_ / units_;
    s.begin = int32_t(at_ % units_);
    s.end = int32_t(stop - s.tile * units_ < units_ ? stop - s.tile * units_ : units_);
    at_ = s.tile * units_ + s.end;
    return true;
  }
  AWQ_DEVICE bool whole(const Share& s) const { return s.begin == 0 && s.end == units_; }
  AWQ_DEVICE int first_block(int64_t tile) const { return block_of(tile * units_); }
  AWQ_DEVICE int last_block(int64_t tile) const { return block_of(tile * units_ + units_ - 1); }
  /// Of block b's part of a tile. A block has at most one that began before it and one that goes on behind it.
  AWQ_DEVICE int64_t slot(int b, int64_t tile) const { return 2 * int64_t(b) + (first_of(b) <= tile * units_ ? 1 : 0); }

 private:
  AWQ_DEVICE int64_t first_of(int b) const { return total_ * b / blocks(); }
  AWQ_DEVICE int block_of(int64_t unit) const { return int(((unit + 1) * blocks() - 1) / total_); }
  int32_t units_;
  int64_t total_, at_;
};

/// Adds up what the blocks of a tile have, N values a thread: true for the threads of the block that has the sum. All
/// threads of the block call it; `last` is a word of shared memory.
template <int N>
AWQ_DEVICE bool add_up(const Shares& shares, int64_t tile, float (&v)[N], float* partial, int32_t* counters,
                       int32_t* last) {
  const auto place = [&](int b) { return partial + (shares.slot(b, tile) * threads() + thread()); };
  const int64_t stride = int64_t(2) * blocks() * threads();  // of one thread's values
  const int from = shares.first_block(tile), to = shares.last_block(tile);
  AWQ_UNROLL
  for (int i = 0; i < N; ++i) place(block())[i * stride] = v[i];
  fence();
  sync_block();
  if (thread() == 0) *last = add_at(counters + tile, 1) == to - from;
  sync_block();
  if (!*last) return false;
  fence();
  AWQ_UNROLL
  for (int i = 0; i < N; ++i) v[i] = 0;
  for (int b = from; b <= to; ++b) {
    AWQ_UNROLL
    for (int i = 0; i < N; ++i) v[i] += place(b)[i * stride];
  }
  if (thread() == 0) counters[tile] = 0;
  return true;
}

}  // namespace awq::cuda
