#include "text/merges.h"

#include <bit>

namespace awq {

Merges::Merges(size_t entries) : shift_(64 - std::bit_width(2 * entries + 1)), slots_(size_t(1) << (64 - shift_)) {}

size_t Merges::slot_of(int32_t left, int32_t right) const {
  const size_t mask = slots_.size() - 1;
  const uint64_t key = (uint64_t(uint32_t(left)) << 32) | uint32_t(right);
  size_t at = (key * 0x9E3779B97F4A7C15u) >> shift_;  // Fibonacci hashing: the high bits depend on all of the key
  while (slots_[at].left >= 0 && (slots_[at].left != left || slots_[at].right != right)) at = (at + 1) & mask;
  return at;
}

void Merges::grow() {
  std::vector<Slot> old(2 * slots_.size());
  old.swap(slots_);
  --shift_;
  for (const Slot& s : old)
    if (s.left >= 0) slots_[slot_of(s.left, s.right)] = s;
}

void Merges::set(int32_t left, int32_t right, Merge merge) {
  if (2 * (count_ + 1) > slots_.size()) grow();
  Slot& slot = slots_[slot_of(left, right)];
  count_ += slot.left < 0 ? 1 : 0;
  slot = {left, right, merge};
}

const Merge* Merges::find(int32_t left, int32_t right) const {
  const Slot& slot = slots_[slot_of(left, right)];
  return slot.left < 0 ? nullptr : &slot.merge;
}

}  // namespace awq
