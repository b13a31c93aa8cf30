#include "formats/bit_fields.h"

#include <algorithm>
#include <cstring>

#include "tensor/transpose.h"

namespace awq {
namespace {

void split_nibbles(const uint8_t* packed, int64_t count, uint8_t* codes) {
  for (int64_t i = 0; i < count / 2; ++i) {
    codes[2 * i] = packed[i] & 15;
    codes[2 * i + 1] = packed[i] >> 4;
  }
}

void join_nibbles(const uint8_t* codes, int64_t count, uint8_t* packed) {
  for (int64_t i = 0; i < count / 2; ++i) packed[i] = uint8_t(codes[2 * i] | codes[2 * i + 1] << 4);
}

// Fields from a window of the bytes that follow; at most 7 + 8 bits of it are waited for.
void split_any(const uint8_t* packed, int64_t count, int bits, uint8_t* codes) {
  uint32_t window = 0;
  int have = 0;
  for (int64_t i = 0; i < count; ++i, window >>= bits, have -= bits) {
    if (have < bits) window |= uint32_t(*packed++) << have, have += 8;
    codes[i] = uint8_t(window & ((1u << bits) - 1));
  }
}

template <class T>
Tensor transposed_as(const Tensor& t) {
  const int64_t rows = t.shape()[0], cols = t.shape()[1];
  Tensor out = Tensor::empty({cols, rows}, t.dtype());
  transpose(reinterpret_cast<const T*>(t.data()), cols, rows, cols, reinterpret_cast<T*>(out.data()), rows);
  return out;
}

}  // namespace

void unpack_fields(const uint8_t* packed, int64_t count, int bits, uint8_t* codes) {
  if (bits == 8)
    std::copy_n(packed, count, codes);
  else if (bits == 4)
    split_nibbles(packed, count, codes);
  else
    split_any(packed, count, bits, codes);
}

void pack_fields(const uint8_t* codes, int64_t count, int bits, uint8_t* packed) {
  if (bits == 8) return void(std::copy_n(codes, count, packed));
  if (bits == 4) return join_nibbles(codes, count, packed);
  uint32_t window = 0;
  int have = 0;
  for (int64_t i = 0; i < count; ++i) {
    window |= uint32_t(codes[i]) << have;
    for (have += bits; have >= 8; have -= 8, window >>= 8) *packed++ = uint8_t(window);
  }
}

Tensor unpack_rows(const Tensor& words, int bits) {
  const int64_t rows = words.shape()[0], bytes = words.shape()[1] * 4, cols = bytes * 8 / bits;
  Tensor codes = Tensor::empty({rows, cols}, DType::u8);
  for (int64_t r = 0; r < rows; ++r)
    unpack_fields(reinterpret_cast<const uint8_t*>(words.data()) + r * bytes, cols, bits,
                  codes.as<uint8_t>().data() + r * cols);
  return codes;
}

Tensor pack_rows_to(const Tensor& codes, int bits, DType word) {
  const int64_t rows = codes.shape()[0], cols = codes.shape()[1], words = cols * bits / 32;
  Tensor packed = Tensor::empty({rows, words}, word);
  for (int64_t r = 0; r < rows; ++r)
    pack_fields(codes.as<uint8_t>().data() + r * cols, cols, bits,
                reinterpret_cast<uint8_t*>(packed.data()) + r * words * 4);
  return packed;
}

Tensor transposed(const Tensor& t) {
  switch (size_of(t.dtype())) {
    case 1:
      return transposed_as<uint8_t>(t);
    case 2:
      return transposed_as<uint16_t>(t);
    default:
      return transposed_as<uint32_t>(t);
  }
}

Tensor columns_in_order(const Tensor& codes, const Tensor& order) {
  const auto from = order.as<int32_t>();
  const int64_t rows = codes.shape()[0], cols = codes.shape()[1];
  Tensor out = Tensor::empty({rows, int64_t(from.size())}, DType::u8);
  uint8_t* to = out.as<uint8_t>().data();
  for (int64_t r = 0; r < rows; ++r)
    for (int32_t c : from) *to++ = codes.as<uint8_t>()[size_t(r * cols + c)];
  return out;
}

Tensor middle_zeros(const Shape& grids, int bits) {
  Tensor t = Tensor::empty(grids, DType::u8);
  std::ranges::fill(t.as<uint8_t>(), uint8_t(1 << (bits - 1)));
  return t;
}

}  // namespace awq
