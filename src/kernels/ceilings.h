#pragma once
// What this machine can do, measured: a speed means little but as a share of these.
#include <cstddef>
#include <optional>
#include <vector>

#include "base/parallel.h"
#include "kernels/kernels.h"
#include "tensor/tensor.h"

namespace awq::kernels {

/// Most operations in 10^9 a second that all threads of the pool reach together with the instruction that `set`
/// multiplies values of `type` with (f32, bf16, i16 or i8), from registers and without dependencies; a product is one
/// operation and its addition another. Empty where the set has no such instruction. Takes some 50 ms.
std::optional<double> peak_rate(ThreadPool& pool, const KernelSet& set, DType type);

/// A buffer far larger than the caches, in huge pages where the system gives them, that all threads read in order.
class ReadBandwidth {
 public:
  /// `bytes` 0: 1 GiB, or twice the last cache where that is more. Throws Error where memory does not suffice.
  explicit ReadBandwidth(ThreadPool& pool, size_t bytes = 0);
  ~ReadBandwidth();
  ReadBandwidth(const ReadBandwidth&) = delete;
  ReadBandwidth& operator=(const ReadBandwidth&) = delete;
  /// Reads everything once.
  void pass();
  size_t bytes() const { return bytes_; }
  double best() const;    // GB/s of the fastest pass
  double median() const;  // GB/s, over all passes so far

 private:
  ThreadPool& pool_;
  size_t bytes_ = 0;
  std::byte* memory_ = nullptr;
  std::vector<double> rates_;
};

}  // namespace awq::kernels
