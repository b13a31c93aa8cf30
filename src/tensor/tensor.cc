#include "tensor/tensor.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <new>

#include "base/numeric.h"

namespace awq {
namespace {

struct DTypeInfo {
  std::string_view name;
  size_t size;
};
constexpr DTypeInfo kInfo[] = {{"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8}, {"I32", 4},
                               {"I16", 2}, {"I8", 1},  {"U8", 1},   {"U32", 4}, {"F8_E4M3", 1}};

constexpr size_t kHuge = 2 << 20;

/// Null where there is no memory. Large tensors are put into huge pages: one thread reads weights a quarter faster from
/// them (16 GB/s instead of 12.5 on an Emerald Rapids). What is left of the last one stays in small pages, so that no
/// memory is used but the tensor's own.
void* allocate(size_t bytes) {
  const size_t alignment = bytes >= 2 * kHuge ? kHuge : 64;
  void* p = nullptr;
  if (::posix_memalign(&p, alignment, bytes ? bytes : 1) != 0) return nullptr;
  if (alignment == kHuge) ::madvise(p, bytes / kHuge * kHuge, MADV_HUGEPAGE);  // may be refused: it is only advice
  return p;
}

/// Freed buffers that the next tensor of the same size takes over: activations come and go with every layer, and the
/// system clears each page that it hands out, which took a fifth of the time of quantizing a small model. Those in huge
/// pages cost little.
class Spares {
 public:
  void* take(size_t bytes) {
    const std::lock_guard lock(mutex_);
    const auto it = std::ranges::find(buffers_.rbegin(), buffers_.rend(), bytes, &Buffer::bytes);
    if (it == buffers_.rend()) return nullptr;
    void* p = it->data;
    kept_ -= bytes;
    buffers_.erase(std::next(it).base());
    return p;
  }
  void keep(void* p, size_t bytes) {
    const std::lock_guard lock(mutex_);
    buffers_.push_back({p, bytes});
    kept_ += bytes;
    trim();
  }
  /// Of any size, up to `most` in all; 0: as without it.
  void keep_large(size_t most) {
    const std::lock_guard lock(mutex_);
    largest_ = most ? most : kLargest, most_ = most ? most : Tensor::kSpare;
    trim();
  }
  bool wants(size_t bytes) const { return bytes >= kLeast && bytes < largest_; }

 private:
  void trim() {
    for (; kept_ > most_; buffers_.pop_front()) {
      kept_ -= buffers_.front().bytes;
      std::free(buffers_.front().data);
    }
  }

  static constexpr size_t kLeast = 256 << 10, kLargest = 2 * kHuge;  // of a buffer
  struct Buffer {
    void* data;
    size_t bytes;
  };
  std::mutex mutex_;
  std::deque<Buffer> buffers_;               // the last one freed is the last
  size_t kept_ = 0, most_ = Tensor::kSpare;  // of all
  std::atomic<size_t> largest_ = kLargest;
};

Spares& spares() {
  static Spares& all = *new Spares;  // tensors may outlive what is destroyed at exit
  return all;
}

// Sanitizers find uses of what was freed.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define AWQ_FREES_AT_ONCE
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(AWQ_FREES_AT_ONCE)
constexpr bool kKeeps = false;
#else
constexpr bool kKeeps = true;
#endif

bool is_spared(size_t bytes) { return kKeeps && spares().wants(bytes); }

void* obtain(size_t bytes) {
  void* p = is_spared(bytes) ? spares().take(bytes) : nullptr;
  return p ? p : allocate(bytes);
}

void release(void* p, size_t bytes) { is_spared(bytes) ? spares().keep(p, bytes) : std::free(p); }

void narrow_all(std::span<const float> in, DType t, uint16_t* out) {
  for (size_t i = 0; i < in.size(); ++i) out[i] = t == DType::f16 ? f32_to_f16(in[i]) : f32_to_bf16(in[i]);
}

}  // namespace

LargeSpares::LargeSpares(size_t most) { spares().keep_large(most); }
LargeSpares::~LargeSpares() { spares().keep_large(0); }

size_t size_of(DType t) { return kInfo[size_t(t)].size; }
std::string_view name_of(DType t) { return kInfo[size_t(t)].name; }

Shape::Shape(std::span<const int64_t> dims) {
  if (dims.size() > dims_.size())
    fail("shape", "a tensor has {} dimensions; at most {} are supported", dims.size(), dims_.size());
  for (int64_t d : dims) {
    dims_[size_t(rank_++)] = d;
    elements_ = checked_mul(elements_, d);
  }
}

std::string Shape::text() const {
  std::string s = "[";
  for (int i = 0; i < rank_; ++i) s += (i ? ", " : "") + std::to_string((*this)[i]);
  return s + "]";
}

Tensor Tensor::empty(Shape shape, DType dtype) {
  const size_t bytes = size_t(checked_mul(shape.elements(), int64_t(size_of(dtype))));
  void* p = obtain(bytes);
  if (!p) fail("memory", "cannot allocate {:.1f} MB for a tensor {}", double(bytes) / 1e6, shape.text());
  return wrap(p, shape, dtype,
              std::shared_ptr<const void>(p, [bytes](const void* q) { release(const_cast<void*>(q), bytes); }));
}

Tensor Tensor::zeros(Shape shape, DType dtype) {
  Tensor t = empty(shape, dtype);
  std::memset(t.data_, 0, t.bytes());
  return t;
}

Tensor Tensor::wrap(const void* data, Shape shape, DType dtype, std::shared_ptr<const void> owner) {
  Tensor t;
  t.shape_ = shape;
  t.dtype_ = dtype;
  t.data_ = static_cast<std::byte*>(const_cast<void*>(data));
  t.owner_ = std::move(owner);
  return t;
}

std::byte* Tensor::typed(DType want) const {
  if (want != dtype_) fail("tensor", "a {} tensor was read as {}", name_of(dtype_), name_of(want));
  return data_;
}

std::span<const uint16_t> Tensor::bits16() const {
  if (dtype_ != DType::f16 && dtype_ != DType::bf16)
    fail("tensor", "a {} tensor was read as 16-bit float", name_of(dtype_));
  return {reinterpret_cast<const uint16_t*>(data_), count()};
}

Tensor Tensor::rows(int64_t begin, int64_t end) const {
  if (shape_.rank() == 0 || begin < 0 || begin > end || end > shape_[0])
    fail("tensor", "rows {} to {} of a tensor {}", begin, end, shape_.text());
  std::array<int64_t, 5> dims{};
  for (int i = 0; i < shape_.rank(); ++i) dims[size_t(i)] = shape_[i];
  const int64_t row = shape_[0] ? shape_.elements() / shape_[0] : 0;
  dims[0] = end - begin;
  return wrap(data_ + size_t(begin * row) * size_of(dtype_),
              Shape(std::span<const int64_t>(dims.data(), size_t(shape_.rank()))), dtype_, owner_);
}

Tensor Tensor::reshaped(Shape shape) const {
  if (shape.elements() != shape_.elements()) fail("tensor", "{} cannot be reshaped to {}", shape_.text(), shape.text());
  return wrap(data_, shape, dtype_, owner_);
}

Tensor Tensor::clone() const {
  Tensor t = empty(shape_, dtype_);
  std::memcpy(t.data_, data_, bytes());
  return t;
}

void Tensor::widen(float* to) const {
  if (dtype_ == DType::f32) {
    std::copy_n(as<float>().data(), count(), to);
    return;
  }
  const auto in = bits16();
  if (dtype_ == DType::f16)
    for (size_t i = 0; i < in.size(); ++i) to[i] = f16_to_f32(in[i]);
  else
    for (size_t i = 0; i < in.size(); ++i) to[i] = bf16_to_f32(in[i]);
}

Tensor Tensor::to(DType dtype) const {
  if (dtype == dtype_) return *this;
  if (dtype_ != DType::f32) {
    Tensor wide = empty(shape_, DType::f32);
    widen(wide.as<float>().data());
    return wide.to(dtype);
  }
  Tensor t = empty(shape_, dtype);
  if (dtype != DType::f16 && dtype != DType::bf16) fail("tensor", "F32 cannot be converted to {}", name_of(dtype));
  narrow_all(as<float>(), dtype, reinterpret_cast<uint16_t*>(t.data_));
  return t;
}

bool same_bytes(const Tensor& a, const Tensor& b) {
  if (!a || !b) return !a && !b;
  return a.bytes() == b.bytes() && std::equal(a.data(), a.data() + a.bytes(), b.data());
}

}  // namespace awq
