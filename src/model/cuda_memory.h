#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "kernels/cuda/device.h"
#include "tensor/tensor.h"

namespace awq {

/// A GPU's memory as tensors, up to a budget: what was free when it began, less a margin for the driver and for others.
/// Buffers that are given back are kept for the next of their size: all work is on one stream, so whoever gets one
/// writes to it after its last reader. Any thread may allocate and give back. Tensors keep the memory, and it the
/// device, alive.
class CudaMemory : public std::enable_shared_from_this<CudaMemory> {
 public:
  /// Buffers that nobody else gets: a recording reads and writes them whenever it is replayed.
  class Held {
   public:
    Held() = default;
    Held(Held&& other) noexcept : memory_(std::move(other.memory_)), buffers_(std::move(other.buffers_)) {}
    Held& operator=(Held&& other) noexcept;
    ~Held() { drop(); }

   private:
    friend CudaMemory;
    void drop() noexcept;
    std::shared_ptr<CudaMemory> memory_;
    std::multimap<size_t, void*> buffers_;  // by size
  };

  explicit CudaMemory(std::unique_ptr<cuda::Device> device);
  ~CudaMemory();
  cuda::Device& device() { return *device_; }
  /// Throws Error where the budget has no room, naming what was asked for.
  Tensor empty(Shape shape, DType dtype);
  Tensor zeros(Shape shape, DType dtype);
  Tensor upload(const void* from, Shape shape, DType dtype);
  template <class T>
  Tensor upload(std::span<const T> values) {
    return upload(values.data(), {int64_t(values.size_bytes())}, DType::u8);
  }
  /// What stays as long as a model or a sequence does: kept_bytes(bytes), where others are rounded up further.
  Tensor kept(Shape shape, DType dtype);
  static int64_t kept_bytes(int64_t bytes);
  static int64_t working_bytes(int64_t bytes);  // that a buffer of empty() takes
  /// In the host's memory.
  Tensor download(const Tensor& t);
  Tensor clone(const Tensor& t);
  bool owns(const void* p) const;
  /// From now on what is given back is held, and taken again first; until end_hold, which returns it.
  void begin_hold();
  Held end_hold();
  int64_t bytes_in_use() const;
  int64_t most_in_use() const;  // since it began, what is kept for the next included
  int64_t budget() const { return budget_; }
  /// Bytes that are to stay free for what a forward pass works in.
  void keep_free(int64_t bytes) { working_ = bytes; }
  /// That may be taken for good.
  int64_t room() const { return budget_ - bytes_in_use() - working_; }

 private:
  Tensor owned(size_t bytes, Shape shape, DType dtype);
  void* take(size_t bytes);
  void* find(size_t bytes);
  void give(void* p, size_t bytes) noexcept;
  void release_spare() noexcept;

  std::unique_ptr<cuda::Device> device_;
  int64_t budget_ = 0, working_ = 0;
  mutable std::mutex mutex_;
  std::map<const std::byte*, size_t> live_;  // by address
  std::multimap<size_t, void*> spare_;       // by size
  std::unique_ptr<Held> holding_;
  int64_t in_use_ = 0, spare_bytes_ = 0, most_ = 0;
};

}  // namespace awq
