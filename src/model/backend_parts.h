#pragma once
#include <array>

#include "model/backend.h"

namespace awq {

class ThreadPool;

/// Throws Error for a token that is no row of [vocab, dim].
void require_rows(const Tensor& table, std::span<const int32_t> tokens);
/// x[t] = table[tokens[t]] * scale, of a table f32, f16 or bf16 [vocab, dim] on the host, f32 [tokens][dim].
void copy_rows(const Tensor& table, std::span<const int32_t> tokens, float scale, float* x);

/// Cosines and sines f32 [positions][frequencies] of the angles that queries and keys are turned by.
struct RopeTable {
  std::vector<float> frequencies;
  std::vector<int> positions;
  std::vector<float> cosines, sines;
};

/// The tables of the last few batches: all blocks of a forward pass turn by the same angles (by two sets of them in
/// Gemma 3). Not thread-safe.
class RopeTables {
 public:
  static constexpr size_t kCount = 4;
  explicit RopeTables(ThreadPool& pool) : pool_(pool) {}
  struct Found {
    const RopeTable& table;  // holds until the next call
    size_t slot;             // below kCount: for who keeps something of each
    bool fresh;              // was made now
  };
  Found of(Batch batch, std::span<const float> frequencies);

 private:
  void fill(RopeTable& t);
  ThreadPool& pool_;
  std::array<RopeTable, kCount> tables_;
  size_t oldest_ = 0;
};

}  // namespace awq
