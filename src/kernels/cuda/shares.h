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

/// Those of sharer `index` of `count`, of tiles of `units` each.
class Shares {
 public:
  AWQ_DEVICE Shares(int64_t tiles, int32_t units, int32_t index, int32_t count)
      : units_(units), index_(index), count_(count), total_(tiles * units), at_(first_of(index)) {}
  AWQ_DEVICE bool next(Share& s) {
    const int64_t stop = first_of(index_ + 1);
    if (at_ >= stop) return false;
    s.tile = at_ / units_;
    s.begin = int32_t(at_ % units_);
    s.end = int32_t(stop - s.tile * units_ < units_ ? stop - s.tile * units_ : units_);
    at_ = s.tile * units_ + s.end;
    return true;
  }
  AWQ_DEVICE bool whole(const Share& s) const { return s.begin == 0 && s.end == units_; }
  AWQ_DEVICE int index() const { return index_; }
  AWQ_DEVICE int count() const { return count_; }
  AWQ_DEVICE int first_sharer(int64_t tile) const { return sharer_of(tile * units_); }
  AWQ_DEVICE int last_sharer(int64_t tile) const { return sharer_of(tile * units_ + units_ - 1); }
  /// Of a sharer's part of a tile, of 2 count: it has at most one that began before it and one that goes on behind it.
  AWQ_DEVICE int64_t slot(int i, int64_t tile) const { return 2 * int64_t(i) + (first_of(i) <= tile * units_ ? 1 : 0); }

 private:
  AWQ_DEVICE int64_t first_of(int i) const { return total_ * i / count_; }
  AWQ_DEVICE int sharer_of(int64_t unit) const { return int(((unit + 1) * count_ - 1) / total_); }
  int32_t units_, index_, count_;
  int64_t total_, at_;
};

/// Adds up what the sharers of a tile have, N values a thread: true for the threads of the block that has the sum. All
/// threads of the block call it; `last` is a word of shared memory, `counter` the tile's.
template <int N>
AWQ_DEVICE bool add_up(const Shares& shares, int64_t tile, float (&v)[N], float* partial, int32_t* counter,
                       int32_t* last) {
  const int64_t stride = int64_t(2) * shares.count() * threads();  // of one thread's values
  const auto place = [&](int i) { return partial + (shares.slot(i, tile) * threads() + thread()); };
  const int from = shares.first_sharer(tile), to = shares.last_sharer(tile);
  AWQ_UNROLL
  for (int i = 0; i < N; ++i) place(shares.index())[i * stride] = v[i];
  fence();
  sync_block();
  if (thread() == 0) *last = add_at(counter, 1) == to - from;
  sync_block();
  if (!*last) return false;
  fence();
  AWQ_UNROLL
  for (int i = 0; i < N; ++i) v[i] = 0;
  for (int s = from; s <= to; ++s) {
    AWQ_UNROLL
    for (int i = 0; i < N; ++i) v[i] += place(s)[i * stride];
  }
  if (thread() == 0) *counter = 0;
  return true;
}

}  // namespace awq::cuda
