#include "formats/autoawq_pack.h"

#include <algorithm>

#include "base/check.h"

namespace awq {
namespace {

constexpr int kRowOfNibble[8] = {0, 2, 4, 6, 1, 3, 5, 7};
// Columns at a time: eight rows of them are eight whole cache lines, and the 64 lines of words they go to stay in L1.
constexpr int64_t kTile = 64;

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

/// i32 [cols, rows / 8] to u8 [rows, cols].
Tensor unpack(const Tensor& packed) {
  const int64_t cols = packed.shape()[0], words = packed.shape()[1];
  Tensor out = Tensor::empty({words * 8, cols}, DType::u8);
  const int32_t* from = packed.as<int32_t>().data();
  uint8_t* to = out.as<uint8_t>().data();
  for_each_word(words * 8, cols, [=](int64_t c, int64_t k) {
    const auto word = uint32_t(from[k * words + c]);
    for (int i = 0; i < 8; ++i) to[(8 * c + kRowOfNibble[i]) * cols + k] = (word >> (4 * i)) & 15;
  });
  return out;
}

Tensor transposed(const Tensor& t) {  // f32
  const int64_t rows = t.shape()[0], cols = t.shape()[1];
  Tensor out = Tensor::empty({cols, rows}, DType::f32);
  const float* from = t.as<float>().data();
  float* to = out.as<float>().data();
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) to[c * rows + r] = from[r * cols + c];
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
