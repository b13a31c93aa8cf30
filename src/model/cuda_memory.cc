#include "model/cuda_memory.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace awq {
namespace {

constexpr int64_t kMargin = int64_t(512) << 20;  // at most; a sixteenth of a GPU with less than 8 GB

// To an eighth of the power of two below: a prompt's last chunk then fits where another's was.
size_t rounded(size_t bytes) {
  const size_t step = std::max<size_t>(512, std::bit_floor(std::max<size_t>(bytes, 1)) / 8);
  return (std::max<size_t>(bytes, 1) + step - 1) / step * step;
}

int64_t less_margin(int64_t bytes) { return bytes - std::min(kMargin, bytes / 16); }

}  // namespace

CudaMemory::CudaMemory(std::unique_ptr<cuda::Device> device)
    : device_(std::move(device)), budget_(less_margin(device_->free_bytes())) {}

CudaMemory::~CudaMemory() { release_spare(); }

void CudaMemory::release_spare() noexcept {
  for (const auto& [bytes, p] : spare_) device_->release(p);
  spare_.clear();
  spare_bytes_ = 0;
}

CudaMemory::Held& CudaMemory::Held::operator=(Held&& other) noexcept {
  drop();
  memory_ = std::move(other.memory_);
  buffers_ = std::move(other.buffers_);
  return *this;
}

void CudaMemory::Held::drop() noexcept {
  for (const auto& [bytes, p] : buffers_) memory_->give(p, bytes);
  buffers_.clear();
}

void CudaMemory::begin_hold() {
  const std::lock_guard lock(mutex_);
  holding_ = std::make_unique<Held>();
}

CudaMemory::Held CudaMemory::end_hold() {
  const std::lock_guard lock(mutex_);
  Held held = std::move(*holding_);
  held.memory_ = shared_from_this();
  holding_.reset();
  return held;
}

/// Null where there is no room.
void* CudaMemory::find(size_t bytes) {
  if (const auto found = spare_.find(bytes); found != spare_.end()) {
    void* p = found->second;
    spare_.erase(found);
    spare_bytes_ -= int64_t(bytes);
    return p;
  }
  if (in_use_ + spare_bytes_ + int64_t(bytes) > budget_) release_spare();
  if (in_use_ + int64_t(bytes) > budget_) return nullptr;
  void* p = device_->allocate(bytes);
  if (p) return p;
  release_spare();
  return device_->allocate(bytes);
}

void* CudaMemory::take(size_t bytes) {
  const std::lock_guard lock(mutex_);
  if (holding_)  // counted as in use, and live, since it was first taken
    if (const auto found = holding_->buffers_.find(bytes); found != holding_->buffers_.end()) {
      void* p = found->second;
      holding_->buffers_.erase(found);
      return p;
    }
  void* p = find(bytes);
  if (!p)
    fail("cuda memory",
         "{} has no room for another {:.1f} MB: {:.1f} MB are in use here, of a budget of {:.1f} MB, and {:.1f} MB are "
         "free. Close other programs that use it, give fewer --gpu-layers, a shorter context or --kv int8, or run on "
         "the CPU with --device cpu",
         device_->name(), double(bytes) / 1e6, double(in_use_) / 1e6, double(budget_) / 1e6,
         double(device_->free_bytes()) / 1e6);
  live_[static_cast<std::byte*>(p)] = bytes;
  in_use_ += int64_t(bytes);
  most_ = std::max(most_, in_use_ + spare_bytes_);
  return p;
}

void CudaMemory::give(void* p, size_t bytes) noexcept {
  const std::lock_guard lock(mutex_);
  if (holding_) {
    holding_->buffers_.emplace(bytes, p);
    return;
  }
  live_.erase(static_cast<std::byte*>(p));
  spare_.emplace(bytes, p);
  in_use_ -= int64_t(bytes);
  spare_bytes_ += int64_t(bytes);
}

int64_t CudaMemory::bytes_in_use() const {
  const std::lock_guard lock(mutex_);
  return in_use_;
}
int64_t CudaMemory::most_in_use() const {
  const std::lock_guard lock(mutex_);
  return most_;
}
int64_t CudaMemory::kept_bytes(int64_t bytes) { return (std::max<int64_t>(bytes, 1) + 511) / 512 * 512; }
int64_t CudaMemory::working_bytes(int64_t bytes) { return int64_t(rounded(size_t(bytes))); }

Tensor CudaMemory::owned(size_t bytes, Shape shape, DType dtype) {
  void* p = take(bytes);
  const std::shared_ptr<const void> owner(p, [self = shared_from_this(), bytes](void* q) { self->give(q, bytes); });
  return Tensor::wrap(p, shape, dtype, owner);
}

Tensor CudaMemory::empty(Shape shape, DType dtype) {
  return owned(rounded(size_t(shape.elements()) * size_of(dtype)), shape, dtype);
}

Tensor CudaMemory::kept(Shape shape, DType dtype) {
  return owned(size_t(kept_bytes(shape.elements() * int64_t(size_of(dtype)))), shape, dtype);
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
