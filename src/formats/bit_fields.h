#pragma once
#include <cstdint>

#include "tensor/tensor.h"

namespace awq {

/// Codes of `bits` bits, 1 to 8, without gaps from the low end of the first byte on: what little-endian words hold
/// whose field i is bits [i * bits, (i + 1) * bits). `count * bits` is a multiple of 8.
void unpack_fields(const uint8_t* packed, int64_t count, int bits, uint8_t* codes);
void pack_fields(const uint8_t* codes, int64_t count, int bits, uint8_t* packed);

/// The same for each row of a matrix of words, i32 or u32 [rows, cols * bits / 32], and u8 [rows, cols].
Tensor unpack_rows(const Tensor& words, int bits);
Tensor pack_rows_to(const Tensor& codes, int bits, DType word);

/// Of u8 or f32 [rows, cols], or words.
Tensor transposed(const Tensor& t);

/// u8 of 2^(bits - 1): the zero points of symmetric formats, which do not store them.
Tensor middle_zeros(const Shape& grids, int bits);

/// u8 [rows, n]: column order[i] of `codes` at i. Indices must be valid.
Tensor columns_in_order(const Tensor& codes, const Tensor& order);

}  // namespace awq
