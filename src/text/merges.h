#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace awq {

/// What a pair of neighbouring tokens becomes, and how early.
struct Merge {
  int32_t rank, id;
};

/// A hash table from pairs of token ids, neither negative, to merges. Grows as needed.
class Merges {
 public:
  explicit Merges(size_t entries = 0);
  /// Replaces an earlier merge of the same pair.
  void set(int32_t left, int32_t right, Merge merge);
  /// Null if the pair does not merge.
  const Merge* find(int32_t left, int32_t right) const;

 private:
  struct Slot {
    int32_t left = -1, right = -1;  // left -1: free
    Merge merge{};
  };
  size_t slot_of(int32_t left, int32_t right) const;
  void grow();

  int shift_;
  size_t count_ = 0;
  std::vector<Slot> slots_;  // a power of two, at most half of them taken
};

}  // namespace awq
