#include "tensor/transpose.h"

#include <cstring>
#include <utility>

namespace awq {
namespace {

template <class T>
struct Lanes {
  static constexpr int kCount = 16 / sizeof(T);
  typedef T Vector __attribute__((vector_size(16)));
};

/// The lanes of a and b in turn, from the first halves or from the second ones.
template <bool second, class V, int... i>
V zip(V a, V b, std::integer_sequence<int, i...>) {
  constexpr int n = sizeof...(i);
  return __builtin_shufflevector(a, b, ((second ? n / 2 : 0) + i / 2 + (i % 2 ? n : 0))...);
}

/// One step for a square of n vectors: zipping vector i with vector i + n / 2 rotates the bits of (row, column) by one
/// place, so that log2(n) steps exchange row and column. Inlined, or the square would go through memory.
template <class V, int n>
[[gnu::always_inline]] inline void rotate(V (&v)[n]) {
  constexpr std::make_integer_sequence<int, n> lanes;
  V w[n];
#pragma GCC unroll 8
  for (int i = 0; i < n / 2; ++i) {
    w[2 * i] = zip<false>(v[i], v[i + n / 2], lanes);
    w[2 * i + 1] = zip<true>(v[i], v[i + n / 2], lanes);
  }
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) v[i] = w[i];
}

template <class T>
void square(const T* from, ptrdiff_t from_row, T* to, ptrdiff_t to_row) {
  constexpr int n = Lanes<T>::kCount;
  typename Lanes<T>::Vector v[n];
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) std::memcpy(&v[i], from + i * from_row, 16);
  rotate(v);
  rotate(v);
  if constexpr (n >= 8) rotate(v);
  if constexpr (n >= 16) rotate(v);
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) std::memcpy(to + i * to_row, &v[i], 16);
}

}  // namespace

template <class T>
void transpose(const T* from, ptrdiff_t from_row, int64_t rows, int64_t cols, T* to, ptrdiff_t to_row) {
  constexpr int64_t n = Lanes<T>::kCount;
  const int64_t whole_rows = rows / n * n, whole_cols = cols / n * n;
  for (int64_t r = 0; r < whole_rows; r += n)
    for (int64_t c = 0; c < whole_cols; c += n) square(from + r * from_row + c, from_row, to + c * to_row + r, to_row);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = r < whole_rows ? whole_cols : 0; c < cols; ++c) to[c * to_row + r] = from[r * from_row + c];
}

template void transpose(const uint8_t*, ptrdiff_t, int64_t, int64_t, uint8_t*, ptrdiff_t);
template void transpose(const uint16_t*, ptrdiff_t, int64_t, int64_t, uint16_t*, ptrdiff_t);
template void transpose(const uint32_t*, ptrdiff_t, int64_t, int64_t, uint32_t*, ptrdiff_t);
template void transpose(const float*, ptrdiff_t, int64_t, int64_t, float*, ptrdiff_t);

}  // namespace awq
