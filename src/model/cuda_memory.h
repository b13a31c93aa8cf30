#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "kernels/cuda/device.h"
#include "tensor/tensor.h"

namespace awq {

/// A GPU's memory as tensors. Buffers that are given back are kept for the next of their size: all work is on one
/// stream, so whoever gets one writes to it after its last reader. Any thread may allocate and give back. Tensors keep
/// the memory, and it the device, alive.
class CudaMemory : public std::enable_shared_from_this<CudaMemory> {
 public:
  explicit CudaMemory(std::unique_ptr<cuda::Device> device) : device_(std::move(device)) {}
  ~CudaMemory();
  cuda::Device& device() { return *device_; }
  /// Throws Error where the GPU has no room, naming what was asked for.
  Tensor empty(Shape shape, DType dtype);
  Tensor zeros(Shape shape, DType dtype);
  Tensor upload(const void* from, Shape shape, DType dtype);
  template <class T>
  Tensor upload(std::span<const T> values) {
    return upload(values.data(), {int64_t(values.size_bytes())}, DType::u8);
  }
  /// In the host's memory.
  Tensor download(const Tensor& t);
  Tensor clone(const Tensor& t);
  bool owns(const void* p) const;
  int64_t bytes_in_use() const { return in_use_; }

 private:
  void* take(size_t bytes);
  void give(void* p, size_t bytes) noexcept;
  void release_spare() noexcept;

  std::unique_ptr<cuda::Device> device_;
  mutable std::mutex mutex_;
  std::map<const std::byte*, size_t> live_;  // by address
  std::multimap<size_t, void*> spare_;       // by size
  int64_t in_use_ = 0;
};

}  // namespace awq
