#include "formats/autoawq_pack.h"

#include <algorithm>

#include "base/check.h"
#include "tensor/transpose.h"

namespace awq {
namespace {

constexpr int kRowOfNibble[8] = {0, 2, 4, 6, 1, 3, 5, 7};
// Columns at a time: eight rows of them are eight whole cache lines, and the 64 lines of words they go to stay in L1.
constexpr int64_t kTile = 64;
// What is unpacked at a time: a cache line of each column. 8 kB.
constexpr int64_t kBytes = 64, kColumns = 128;

/// Calls f(group of eight rows, column) for all of [rows / 8, cols], in tiles.
template <class F>
void for_each_word(int64_t rows, int64_t cols, F f) {
  for (int64_t begin = 0; begin < cols; begin += kTile)
    for (int64_t c = 0; c < rows / 8; ++c)
      for (int64_t k = begin; k < std::min(begin + kTile, cols); ++k) f(c, k);
}

/// u8 [rows, cols] to i32 [cols, rows / 8].
Tensor pack(const Tensor& nibbles) {
  const int64_t rows = nibbles.shape()[0], cols = nibbles.shape()[1], words = rows / 8;
  Tensor out = Tensor::empty({cols, words}, DType::i32);
  const uint8_t* from = nibbles.as<uint8_t>().data();
  int32_t* to = out.as<int32_t>().data();
  for_each_word(rows, cols, [=](int64_t c, int64_t k) {
    uint32_t word = 0;
    for (int i = 0; i < 8; ++i) word |= uint32_t(from[(8 * c + kRowOfNibble[i]) * cols + k] & 15) << (4 * i);
    to[k * words + c] = int32_t(word);
  });
  return out;
}

/// Low and high halves of n bytes.
void split(const uint8_t* from, int64_t n, uint8_t* low, uint8_t* high) {
  for (int64_t i = 0; i < n; ++i) {
    low[i] = from[i] & 15;
    high[i] = uint8_t(from[i] >> 4);
  }
}

/// Bytes [begin, begin + n) of m columns to lines[byte][column]. Their lines of cache are far apart, which no CPU
/// prefetches: those beside them, needed next, are asked for a few at a time.
void transpose_bytes(const uint8_t* columns, int64_t step, int64_t m, int64_t n, uint8_t (*lines)[kColumns]) {
  constexpr int64_t kSome = 16;
  for (int64_t c = 0; c < m; c += kSome) {
    const int64_t some = std::min(kSome, m - c);
    for (int64_t k = c; k < c + some; ++k) __builtin_prefetch(columns + k * step + kBytes);
    transpose(columns + c * step, step, some, n, lines[0] + c, kColumns);
  }
}

/// Bytes [begin, begin + n) of columns [first, first + m) of `from` to the two rows that each holds.
void unpack_bytes(const uint8_t* from, int64_t bytes, int64_t begin, int64_t n, int64_t first, int64_t m, uint8_t* to,
                  int64_t cols) {
  uint8_t lines[kBytes][kColumns];
  transpose_bytes(from + first * bytes + begin, bytes, m, n, lines);
  for (int64_t b = begin; b < begin + n; ++b) {
    uint8_t* rows = to + b / 4 * 8 * cols + first;
    split(lines[b - begin], m, rows + kRowOfNibble[b % 4 * 2] * cols, rows + kRowOfNibble[b % 4 * 2 + 1] * cols);
  }
}

/// i32 [cols, rows / 8] to u8 [rows, cols].
Tensor unpack(const Tensor& packed) {
  const int64_t cols = packed.shape()[0], bytes = packed.shape()[1] * 4;
  Tensor out = Tensor::empty({bytes * 2, cols}, DType::u8);
  const auto* from = reinterpret_cast<const uint8_t*>(packed.data());
  uint8_t* to = out.as<uint8_t>().data();
  for (int64_t c = 0; c < cols; c += kColumns)
    for (int64_t b = 0; b < bytes; b += kBytes)
      unpack_bytes(from, bytes, b, std::min(kBytes, bytes - b), c, std::min(kColumns, cols - c), to, cols);
  return out;
}

Tensor transposed(const Tensor& t) {  // f32
  const int64_t rows = t.shape()[0], cols = t.shape()[1];
  Tensor out = Tensor::empty({cols, rows}, DType::f32);
  transpose(t.as<float>().data(), cols, rows, cols, out.as<float>().data(), rows);
  return out;
}

Tensor all_eights(Shape shape) {
  Tensor t = Tensor::empty(shape, DType::u8);
  std::ranges::fill(t.as<uint8_t>(), uint8_t(8));
  return t;
}

}  // namespace

AutoAwqTensors pack_autoawq(const QMatrix& q) {
  if (q.spec.bits != 4) fail("write", "the AutoAWQ format holds 4 bits a weight, not {}", q.spec.bits);
  if (q.rows() % 8) fail("write", "the AutoAWQ format packs eight rows together, and {} is no multiple of 8", q.rows());
  return {pack(q.codes), pack(q.zeros), transposed(q.scales).to(q.spec.scale_dtype)};
}

QMatrix unpack_autoawq(const AutoAwqTensors& t) {
  QMatrix q;
  q.spec = {.bits = 4, .group_size = int(t.qweight.shape()[0] / t.scales.shape()[0]), .scale_dtype = t.scales.dtype()};
  q.codes = unpack(t.qweight);
  q.scales = transposed(t.scales.to(DType::f32));
  q.zeros = t.qzeros ? unpack(t.qzeros) : all_eights(q.scales.shape());
  return q;
}

}  // namespace awq
