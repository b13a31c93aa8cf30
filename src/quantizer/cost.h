#pragma once
#include <chrono>

#include "model/spec.h"

namespace awq {

/// What a stage has taken so far. A product is one operation and its addition another.
struct StageCost {
  double seconds = 0, operations = 0;
  int64_t bytes = 0;  // read from or written to files
};

/// One block's. `forward` does not contain `gram`.
struct BlockCosts {
  StageCost load, forward, gram, search, clip, check, write;
};

/// Adds its own life to a cost, less what another cost grew by meanwhile.
class Timed {
 public:
  explicit Timed(StageCost& to, double operations = 0, const StageCost* less = nullptr)
      : to_(to), less_(less), before_(less ? less->seconds : 0) {
    to_.operations += operations;
  }
  ~Timed() {
    to_.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
    if (less_) to_.seconds -= less_->seconds - before_;
  }
  Timed(const Timed&) = delete;
  Timed& operator=(const Timed&) = delete;

 private:
  StageCost& to_;
  const StageCost* less_;
  double before_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

/// Of the matrices of a block for so many tokens; attention itself is not counted.
double block_operations(const BlockSpec& spec, int64_t tokens);
/// Of the module that `role` is a layer of: the attention or the MLP.
double module_operations(const BlockSpec& spec, Role role, int64_t tokens);

}  // namespace awq
