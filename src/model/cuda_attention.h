#pragma once
#include <list>

#include "model/cuda_cache.h"
#include "model/cuda_linear.h"

namespace awq {

/// Small arrays on the device, by what they hold: all blocks of a forward pass ask for the same ones.
class CudaArrays {
 public:
  explicit CudaArrays(CudaMemory& memory) : memory_(memory) {}
  template <class T>
  const T* at(std::span<const T> values) {
    return reinterpret_cast<const T*>(find({reinterpret_cast<const std::byte*>(values.data()), values.size_bytes()}));
  }
  template <class T>
  const T* at(const std::vector<T>& values) {
    return at(std::span<const T>(values));
  }

 private:
  struct Entry {
    std::vector<std::byte> host;
    Tensor device;
  };
  const std::byte* find(std::span<const std::byte> bytes);
  static constexpr size_t kEntries = 24;
  CudaMemory& memory_;
  std::list<Entry> entries_;  // the latest first
};

void cuda_attention(CudaContext& cuda, CudaArrays& arrays, const Tensor& q, const Tensor& k, const Tensor& v,
                    std::span<const float> sinks, Batch batch, int block, const AttentionSpec& spec, Tensor& y);

}  // namespace awq
