#include "formats/autoawq_pack.h"

#include <algorithm>

#include "base/check.h"
#include "formats/bit_fields.h"
#include "tensor/transpose.h"

namespace awq {
namespace {

/// Which of the rows of a word its code i belongs to.
template <int bits>
constexpr int row_of(int i) {
  constexpr int half = 16 / bits;
  return i < half ? 2 * i : 2 * (i - half) + 1;
}
// Columns at a time: eight rows of them are eight whole cache lines, and the 64 lines of words they go to stay in L1.
constexpr int64_t kTile = 64;
// What is unpacked at a time: a cache line of each column. 8 kB.
constexpr int64_t kBytes = 64, kColumns = 128;

/// Calls f(word, column) for all of [words, cols], in tiles.
template <class F>
void for_each_word(int64_t words, int64_t cols, F f) {
  for (int64_t begin = 0; begin < cols; begin += kTile)
    for (int64_t c = 0; c < words; ++c)
      for (int64_t k = begin; k < std::min(begin + kTile, cols); ++k) f(c, k);
}

/// u8 [rows, cols] to i32 [cols, rows / P].
template <int bits>
Tensor pack(const Tensor& codes) {
  constexpr int kRows = rows_of_word(bits), kMask = (1 << bits) - 1;
  const int64_t cols = codes.shape()[1], words = codes.shape()[0] / kRows;
  Tensor out = Tensor::empty({cols, words}, DType::i32);
  const uint8_t* from = codes.as<uint8_t>().data();
  int32_t* to = out.as<int32_t>().data();
  for_each_word(words, cols, [=](int64_t c, int64_t k) {
    uint32_t word = 0;
    for (int i = 0; i < kRows; ++i)
      word |= uint32_t(from[(kRows * c + row_of<bits>(i)) * cols + k] & kMask) << (bits * i);
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

/// Byte b of each column, of those of a word, to the one or two rows that it holds; `rows` is the first of the word's.
template <int bits>
void unpack_line(const uint8_t* line, int64_t m, int b, uint8_t* rows, int64_t cols) {
  if constexpr (bits == 4)
    split(line, m, rows + row_of<4>(2 * b) * cols, rows + row_of<4>(2 * b + 1) * cols);
  else
    std::copy_n(line, m, rows + row_of<8>(b) * cols);
}

/// Bytes [begin, begin + n) of columns [first, first + m) of `from` to the rows that they hold.
template <int bits>
void unpack_bytes(const uint8_t* from, int64_t bytes, int64_t begin, int64_t n, int64_t first, int64_t m, uint8_t* to,
                  int64_t cols) {
  uint8_t lines[kBytes][kColumns];
  transpose_bytes(from + first * bytes + begin, bytes, m, n, lines);
  for (int64_t b = begin; b < begin + n; ++b)
    unpack_line<bits>(lines[b - begin], m, int(b % 4), to + b / 4 * rows_of_word(bits) * cols + first, cols);
}

/// i32 [cols, rows / P] to u8 [rows, cols].
template <int bits>
Tensor unpack(const Tensor& packed) {
  const int64_t cols = packed.shape()[0], bytes = packed.shape()[1] * 4;
  Tensor out = Tensor::empty({packed.shape()[1] * rows_of_word(bits), cols}, DType::u8);
  const auto* from = reinterpret_cast<const uint8_t*>(packed.data());
  uint8_t* to = out.as<uint8_t>().data();
  for (int64_t c = 0; c < cols; c += kColumns)
    for (int64_t b = 0; b < bytes; b += kBytes)
      unpack_bytes<bits>(from, bytes, b, std::min(kBytes, bytes - b), c, std::min(kColumns, cols - c), to, cols);
  return out;
}

template <int bits>
AutoAwqTensors packed(const QMatrix& q) {
  if (q.rows() % rows_of_word(bits))
    fail("write", "the AutoAWQ layout packs {0} rows together, and {1} is no multiple of {0}", rows_of_word(bits),
         q.rows());
  return {pack<bits>(q.codes), pack<bits>(q.zeros), transposed(q.scales).to(q.spec.scale_dtype)};
}

template <int bits>
QMatrix unpacked(const AutoAwqTensors& t) {
  QMatrix q;
  q.spec = {
      .bits = bits, .group_size = int(t.qweight.shape()[0] / t.scales.shape()[0]), .scale_dtype = t.scales.dtype()};
  q.codes = unpack<bits>(t.qweight);
  q.scales = transposed(t.scales.to(DType::f32));
  q.zeros = t.qzeros ? unpack<bits>(t.qzeros) : middle_zeros(q.scales.shape(), bits);
  return q;
}

}  // namespace

AutoAwqTensors pack_autoawq(const QMatrix& q) {
  if (q.spec.bits == 4) return packed<4>(q);
  if (q.spec.bits == 8) return packed<8>(q);
  fail("write", "the AutoAWQ layout holds 4 or 8 bits a weight, not {}", q.spec.bits);
}

QMatrix unpack_autoawq(const AutoAwqTensors& t) {
  return t.qweight.shape()[1] * rows_of_word(4) == t.scales.shape()[1] ? unpacked<4>(t) : unpacked<8>(t);
}

}  // namespace awq
