#include "eval/few_shot.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <set>

#include "base/check.h"

namespace awq {

// CPython seeds with the words of the number, through init_by_array of the authors' mt19937ar.c.
PythonRandom::PythonRandom(uint64_t seed) {
  const std::array<uint32_t, 2> key = {uint32_t(seed), uint32_t(seed >> 32)};
  const size_t words = key[1] ? 2 : 1;
  state_[0] = 19650218;
  for (size_t i = 1; i < kWords; ++i) state_[i] = 1812433253U * (state_[i - 1] ^ (state_[i - 1] >> 30)) + uint32_t(i);
  size_t i = 1;
  const auto step = [&](uint32_t factor) {
    state_[i] ^= (state_[i - 1] ^ (state_[i - 1] >> 30)) * factor;
    return i;
  };
  const auto advance = [&] {
    if (++i < kWords) return;
    state_[0] = state_[kWords - 1];
    i = 1;
  };
  for (size_t n = 0; n < kWords; ++n, advance()) state_[step(1664525)] += key[n % words] + uint32_t(n % words);
  for (size_t n = 1; n < kWords; ++n, advance()) state_[step(1566083941)] -= uint32_t(i);
  state_[0] = 0x80000000U;
}

uint32_t PythonRandom::next() {
  if (at_ == kWords) {
    for (size_t i = 0; i < kWords; ++i) {
      const uint32_t y = (state_[i] & 0x80000000U) | (state_[(i + 1) % kWords] & 0x7fffffffU);
      state_[i] = state_[(i + 397) % kWords] ^ (y >> 1) ^ (y & 1 ? 0x9908b0dfU : 0);
    }
    at_ = 0;
  }
  uint32_t y = state_[at_++];
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680U;
  y ^= (y << 15) & 0xefc60000U;
  return y ^ (y >> 18);
}

size_t PythonRandom::below(size_t n) {
  const int bits = int(std::bit_width(n));
  size_t r = n;
  while (r >= n) r = next() >> (32 - bits);
  return r;
}

// CPython takes from a shrinking list where that is smaller than a set of what is taken.
std::vector<size_t> PythonRandom::sample(size_t n, size_t k) {
  std::vector<size_t> result;
  const double set_size = 21 + (k > 5 ? std::pow(4, std::ceil(std::log(double(k) * 3) / std::log(4.0))) : 0);
  if (double(n) <= set_size) {
    std::vector<size_t> pool(n);
    std::iota(pool.begin(), pool.end(), size_t(0));
    for (size_t i = 0; i < k; ++i) {
      const size_t j = below(n - i);
      result.push_back(pool[j]);
      pool[j] = pool[n - i - 1];
    }
    return result;
  }
  std::set<size_t> taken;
  while (result.size() < k)
    if (const size_t j = below(n); taken.insert(j).second) result.push_back(j);
  return result;
}

namespace {

bool same(const TaskItem& a, const TaskItem& b) { return a.contexts == b.contexts && a.choices == b.choices; }

}  // namespace

FewShot::FewShot(const Task& task, std::span<const TaskItem> pool, bool own, int shots, uint64_t seed)
    : task_(task), pool_(pool), own_(own), shots_(size_t(shots)), random_(seed) {
  if (shots_ + own_ > pool.size())
    fail("eval", "{}: {} examples were asked for, but there are {} to take them of", task.name, shots,
         pool.size() - std::min<size_t>(pool.size(), own_));
}

std::vector<size_t> FewShot::drawn(const TaskItem& item) {
  std::vector<size_t> all(pool_.size());
  std::iota(all.begin(), all.end(), size_t(0));
  if (!task_.first_shots) all = random_.sample(pool_.size(), shots_ + own_);
  if (own_) std::erase_if(all, [&](size_t i) { return same(pool_[i], item); });
  if (all.size() < shots_)
    fail("eval",
         "{}: fewer than {} items differ from one that occurs several times; give other examples with "
         "--shots-from",
         task_.name, shots_);
  all.resize(shots_);
  return all;
}

std::string FewShot::before(const TaskItem& item) {
  std::string text;
  if (shots_)
    for (size_t i : drawn(item)) text += shot(pool_[i]);
  return text;
}

std::string shot(const TaskItem& item) { return item.context(item.gold) + " " + item.choice(item.gold) + "\n\n"; }

}  // namespace awq
