#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/check.h"

namespace awq {

/// f8_e4m3 is stored only: four bits of exponent, bias 7, no infinity.
enum class DType : uint8_t { f32, f16, bf16, i64, i32, i16, i8, u8, u32, f8_e4m3 };
size_t size_of(DType t);
std::string_view name_of(DType t);  // "F32", as safetensors spells it

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::i64;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct DTypeOf<int16_t> {
  static constexpr DType value = DType::i16;
};
template <>
struct DTypeOf<int8_t> {
  static constexpr DType value = DType::i8;
};
template <>
struct DTypeOf<uint32_t> {
  static constexpr DType value = DType::u32;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::u8;
};

/// Up to five dimensions, outermost first. Unused trailing dimensions are absent, not 1.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) : Shape(std::span<const int64_t>(dims.begin(), dims.size())) {}
  explicit Shape(std::span<const int64_t> dims);
  int rank() const { return rank_; }
  int64_t operator[](int i) const { return dims_[size_t(i < 0 ? rank_ + i : i)]; }
  int64_t elements() const { return elements_; }
  std::string text() const;  // "[576, 1536]"
  bool operator==(const Shape&) const = default;

 private:
  std::array<int64_t, 5> dims_{};
  int rank_ = 0;
  int64_t elements_ = 1;
};

/// While one exists, freed buffers of any size are kept for tensors of the same size, up to `most` bytes in all: for
/// jobs of large matrices, one after another, of few shapes. It is the process': of two at a time the last one's word
/// counts.
class LargeSpares {
 public:
  explicit LargeSpares(size_t most);
  ~LargeSpares();
  LargeSpares(const LargeSpares&) = delete;
  LargeSpares& operator=(const LargeSpares&) = delete;
};

/// A dense, row-major array and whatever keeps its memory alive: a heap buffer or an mmap. Copying is cheap and shares
/// the data; `clone()` copies the bytes. Writing through `as<T>()` to a tensor over a read-only mapping is the
/// caller's error.
class Tensor {
 public:
  Tensor() = default;
  static Tensor zeros(Shape shape, DType dtype);
  static Tensor empty(Shape shape, DType dtype);  // 64-byte aligned, contents unspecified
  /// Freed buffers that are kept for tensors of the same size; bytes of all together.
  static constexpr int64_t kSpare = 12 << 20;
  static Tensor wrap(const void* data, Shape shape, DType dtype, std::shared_ptr<const void> owner);
  template <class T>
  static Tensor of(std::span<const T> values, Shape shape) {
    Tensor t = empty(shape, DTypeOf<T>::value);
    std::copy(values.begin(), values.end(), t.as<T>().begin());
    return t;
  }

  const Shape& shape() const { return shape_; }
  DType dtype() const { return dtype_; }
  size_t bytes() const { return size_t(shape_.elements()) * size_of(dtype_); }
  explicit operator bool() const { return data_ != nullptr; }
  const std::shared_ptr<const void>& owner() const { return owner_; }  // of the memory
  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  template <class T>
  std::span<T> as() {
    return {reinterpret_cast<T*>(typed(DTypeOf<T>::value)), count()};
  }
  template <class T>
  std::span<const T> as() const {
    return {reinterpret_cast<const T*>(typed(DTypeOf<T>::value)), count()};
  }
  /// The bits of a 16-bit float tensor.
  std::span<const uint16_t> bits16() const;

  Tensor rows(int64_t begin, int64_t end) const;  // shares data
  Tensor reshaped(Shape shape) const;             // shares data; same number of elements
  Tensor to(DType dtype) const;                   // between f32, f16 and bf16; shares data if nothing changes
  void widen(float* to) const;                    // all elements, of f32, f16 or bf16
  Tensor clone() const;

 private:
  std::byte* typed(DType want) const;
  size_t count() const { return size_t(shape_.elements()); }

  Shape shape_;
  DType dtype_ = DType::f32;
  std::byte* data_ = nullptr;
  std::shared_ptr<const void> owner_;
};

/// Whether both are empty or hold the same bytes; shapes and types do not matter.
bool same_bytes(const Tensor& a, const Tensor& b);

}  // namespace awq
