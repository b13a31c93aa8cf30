#include "model/cpu_pack.h"

#include <gtest/gtest.h>

#include <bit>
#include <numeric>
#include <random>

#include "base/numeric.h"

namespace awq {
namespace {

using kernels::kPanel;

QMatrix matrix(int64_t rows, int64_t cols, QuantSpec spec) {
  std::mt19937 rng{unsigned(rows * 7 + cols)};
  const Shape grids{rows, cols / spec.group_size};
  QMatrix q{spec, Tensor::empty({rows, cols}, DType::u8), Tensor::empty(grids, DType::f32),
            Tensor::empty(grids, DType::u8)};
  for (auto& v : q.codes.as<uint8_t>()) v = uint8_t(rng() % (1u << spec.bits));
  for (auto& v : q.zeros.as<uint8_t>()) v = uint8_t(rng() % (1u << spec.bits));
  for (auto& v : q.scales.as<float>()) v = f16_to_f32(f32_to_f16(float(1 + rng() % 1000) * 1.7e-5f));
  return q;
}

void put(std::vector<uint8_t>& out, uint32_t v, int bytes) {
  for (int i = 0; i < bytes; ++i) out.push_back(uint8_t(v >> 8 * i));
}

/// The text of kernels.h, line by line, for a stream with groups of `group` columns.
std::vector<uint8_t> stream_by_the_text(const QMatrix& q, int group) {
  static constexpr int kOrder4[] = {0, 4, 2, 6, 1, 5, 3, 7}, kOrder8[] = {0, 2, 1, 3};
  const int bits = q.spec.bits, columns = 32 / bits;
  const auto inside = [&](int64_t r) { return r < q.rows(); };
  const auto grid = [&](int64_t r, int64_t c) { return size_t(r * q.groups() + c / q.spec.group_size); };
  std::vector<uint8_t> out;
  for (int64_t row = 0; row < q.rows(); row += kPanel)
    for (int64_t col = 0; col < q.cols(); col += group) {
      for (int64_t c = col; c < col + group; c += columns)
        for (int64_t r = row; r < row + kPanel; ++r) {
          uint32_t word = 0;
          for (int i = 0; i < columns && inside(r); ++i) {
            const int64_t from = r * q.cols() + c + (bits == 4 ? kOrder4 : kOrder8)[i];
            word |= uint32_t(q.codes.as<uint8_t>()[size_t(from)]) << bits * i;
          }
          put(out, word, 4);
        }
      for (int64_t r = row; r < row + kPanel; ++r) {
        const float scale = inside(r) ? q.scales.as<float>()[grid(r, col)] : 0.f;
        if (q.spec.scale_dtype == DType::f16)
          put(out, f32_to_f16(scale), 2);
        else
          put(out, std::bit_cast<uint32_t>(scale), 4);
      }
      for (int64_t r = row; r < row + kPanel; ++r)
        out.push_back(inside(r) ? q.zeros.as<uint8_t>()[grid(r, col)] : uint8_t(0));
    }
  return out;
}

Tensor columns(const Tensor& t, int64_t begin, int64_t end) {  // u8 or f32 [rows, cols]
  Tensor out = Tensor::empty({t.shape()[0], end - begin}, t.dtype());
  const auto size = int64_t(size_of(t.dtype()));
  for (int64_t r = 0; r < t.shape()[0]; ++r)
    std::copy_n(t.data() + (r * t.shape()[1] + begin) * size, (end - begin) * size,
                out.data() + r * (end - begin) * size);
  return out;
}

/// All rows of `width` columns at a time: whole groups, or a part of one.
Pieces by_columns(const QMatrix& q, int64_t width) {
  return {q.codes.shape(), q.spec, (q.cols() + width - 1) / width, [=](int64_t i) {
            const int64_t begin = i * width, end = std::min(q.cols(), begin + width);
            const int64_t first = begin / q.spec.group_size, last = (end - 1) / q.spec.group_size + 1;
            QuantSpec spec = q.spec;
            spec.group_size = int((end - begin) / (last - first));
            return Piece{0, begin,
                         QMatrix{spec, columns(q.codes, begin, end), columns(q.scales, first, last),
                                 columns(q.zeros, first, last)}};
          }};
}

TEST(PackInt, IsTheTextOfKernelsH) {
  ThreadPool pool(2);
  for (int bits : {4, 8})
    for (DType scales : {DType::f16, DType::bf16, DType::f32})
      for (int group : {8, 24, 32, 64, 128, 192, 256, 768})
        for (int64_t rows : {1, 15, 16, 23, 200}) {
          SCOPED_TRACE(fmt::format("{} bits, {} scales, groups of {}, {} rows", bits, name_of(scales), group, rows));
          const QMatrix q = matrix(rows, 768, {.bits = bits, .group_size = group, .scale_dtype = scales});
          const int inner = std::gcd(group, 128), width = group <= 128 ? 128 / group * group : inner;
          const std::vector<uint8_t> expected = stream_by_the_text(q, inner);
          for (const Pieces& pieces : {pieces_of(q), by_columns(q, width)}) {
            const PackedMatrix p = pack_int(pieces, pool);
            ASSERT_EQ(p.group, inner);
            ASSERT_EQ(p.stream.bytes(), expected.size());
            ASSERT_EQ(packed_bytes(pieces), int64_t(expected.size()));
            ASSERT_TRUE(std::ranges::equal(p.stream.as<uint8_t>(), expected));
          }
        }
}

template <class T>
void expect_panels(const T* w, const T* panels, int64_t rows, int64_t cols) {
  for (int64_t p = 0; p * kPanel < rows; ++p)
    for (int64_t c = 0; c < cols; ++c)
      for (int64_t r = p * kPanel; r < (p + 1) * kPanel; ++r)
        ASSERT_EQ(panels[(p * cols + c) * kPanel + r % kPanel], r < rows ? w[r * cols + c] : T(0)) << r << ", " << c;
}

// 1,100 columns of f32 make several bands; they and 200 rows end in the middle of a square and of a panel.
TEST(PackPanels, SixteenRowsOfAColumnLieTogether) {
  ThreadPool pool(2);
  for (DType type : {DType::f32, DType::bf16, DType::f16})
    for (int64_t rows : {1, 16, 27, 200}) {
      Tensor w = Tensor::empty({rows, 1100}, type);
      for (size_t i = 0; i < w.bytes(); ++i) w.data()[i] = std::byte(i % 61);
      const Tensor panels = pack_panels(pieces_of(w), pool);
      EXPECT_EQ(int64_t(panels.bytes()), packed_bytes(pieces_of(w)));
      if (type == DType::f32)
        expect_panels(w.as<float>().data(), panels.as<float>().data(), rows, 1100);
      else
        expect_panels(w.bits16().data(), panels.bits16().data(), rows, 1100);
    }
}

TEST(PackInt, WhatReadingThrowsArrives) {
  ThreadPool pool(2);
  Pieces p = pieces_of(matrix(600, 1024, {.group_size = 128}));
  ASSERT_GT(p.count, 1);
  p.read = [](int64_t i) -> Piece { fail("open", "piece {}", i); };
  EXPECT_THROW(pack_int(p, pool), Error);
}

TEST(PackInt, RefusesWhatKernelsDoNotTake) {
  ThreadPool pool(1);
  EXPECT_THROW(pack_int(pieces_of(matrix(16, 32, {.bits = 1, .group_size = 32})), pool), Error);
  EXPECT_THROW(pack_int(pieces_of(matrix(16, 32, {.bits = 4, .group_size = 4})), pool), Error);
}

}  // namespace
}  // namespace awq
