#include "model/cuda_memory.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace awq {
namespace {

// To an eighth of the power of two below: a prompt's last chunk then fits where another's was.
size_t rounded(size_t bytes) {
  const size_t step = std::max<size_t>(512, std::bit_floor(std::max<size_t>(bytes, 1)) / 8);
  return (std::max<size_t>(bytes, 1) + step - 1) / step * step;
}

}  // namespace

CudaMemory::~CudaMemory() { release_spare(); }

void CudaMemory::release_spare() noexcept {
  for (const auto& [bytes, p] : spare_) device_->release(p);
  spare_.clear();
}

void* CudaMemory::take(size_t bytes) {
  const std::lock_guard lock(mutex_);
  void* p = nullptr;
  if (const auto found = spare_.find(bytes); found != spare_.end()) {
    p = found->second;
    spare_.erase(found);
  } else if (p = device_->allocate(bytes); !p) {
    release_spare();
    p = device_->allocate(bytes);
  }
  if (!p)
    fail("cuda memory",
         "{} has no room for another {:.1f} MB: {:.1f} MB are in use here, {:.1f} MB are free. Close other programs "
         "that "
         "use it, give a shorter context or --kv int8, or run on the CPU with --device cpu",
         device_->name(), double(bytes) / 1e6, double(in_use_) / 1e6, double(device_->free_bytes()) / 1e6);
  live_[static_cast<std::byte*>(p)] = bytes;
  in_use_ += int64_t(bytes);
  return p;
}

void CudaMemory::give(void* p, size_t bytes) noexcept {
  const std::lock_guard lock(mutex_);
  live_.erase(static_cast<std::byte*>(p));
  spare_.emplace(bytes, p);
  in_use_ -= int64_t(bytes);
}

Tensor CudaMemory::empty(Shape shape, DType dtype) {
  const size_t bytes = rounded(size_t(shape.elements()) * size_of(dtype));
  void* p = take(bytes);
  const std::shared_ptr<const void> owner(p, [self = shared_from_this(), bytes](void* q) { self->give(q, bytes); });
  return Tensor::wrap(p, shape, dtype, owner);
}

Tensor CudaMemory::zeros(Shape shape, DType dtype) {
  Tensor t = empty(shape, dtype);
  device_->zero(t.data(), t.bytes());
  return t;
}

Tensor CudaMemory::upload(const void* from, Shape shape, DType dtype) {
  Tensor t = empty(shape, dtype);
  device_->upload(t.data(), from, t.bytes());
  return t;
}

Tensor CudaMemory::download(const Tensor& t) {
  Tensor host = Tensor::empty(t.shape(), t.dtype());
  device_->download(host.data(), t.data(), t.bytes());
  return host;
}

Tensor CudaMemory::clone(const Tensor& t) {
  Tensor copy = empty(t.shape(), t.dtype());
  device_->copy(copy.data(), t.data(), t.bytes());
  return copy;
}

bool CudaMemory::owns(const void* p) const {
  const std::lock_guard lock(mutex_);
  const auto* at = static_cast<const std::byte*>(p);
  const auto next = live_.upper_bound(at);
  if (next == live_.begin()) return false;
  const auto& [begin, bytes] = *std::prev(next);
  return at < begin + bytes;
}

}  // namespace awq
