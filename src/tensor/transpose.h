#pragma once
#include <cstddef>
#include <cstdint>

namespace awq {

/// to[c * to_row + r] = from[r * from_row + c] for r < rows, c < cols, in squares of one 16-byte vector a side. Steps
/// are in elements. One thread. For T = uint8_t, uint16_t, uint32_t and float.
template <class T>
void transpose(const T* from, ptrdiff_t from_row, int64_t rows, int64_t cols, T* to, ptrdiff_t to_row);

}  // namespace awq
