#pragma once
#include <array>

#include "eval/task.h"

namespace awq {

/// Python's random.Random(seed), as far as examples are drawn with it: the Mersenne Twister (Matsumoto and Nishimura,
/// ACM TOMACS 8 (1998)) with CPython's seeding and rejection, so that the examples are those lm-eval draws.
class PythonRandom {
 public:
  explicit PythonRandom(uint64_t seed);
  /// Indices of `k` of `n` things, k <= n, as random.sample draws them.
  std::vector<size_t> sample(size_t n, size_t k);

 private:
  uint32_t next();
  size_t below(size_t n);

  static constexpr size_t kWords = 624;
  std::array<uint32_t, kWords> state_{};
  size_t at_ = kWords;
};

/// Draws examples for one item after the other, as lm-eval does.
class FewShot {
 public:
  /// `pool`: items that examples are taken of; `own`: they are the items themselves, of which none may be its own
  /// example. Throws Error where there are too few.
  FewShot(const Task& task, std::span<const TaskItem> pool, bool own, int shots, uint64_t seed);
  /// What stands before `item`, which must be the next one.
  std::string before(const TaskItem& item);

 private:
  std::vector<size_t> drawn(const TaskItem& item);

  const Task& task_;
  std::span<const TaskItem> pool_;
  bool own_;
  size_t shots_;
  PythonRandom random_;
};

/// An item with its answer, as an example.
std::string shot(const TaskItem& item);

}  // namespace awq
