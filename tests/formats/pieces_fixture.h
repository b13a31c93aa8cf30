#pragma once
#include <gtest/gtest.h>

#include <algorithm>

#include "formats/format.h"
#include "formats/params.h"

namespace awq {

/// Copies a piece's elements into the whole.
inline void place(const Tensor& part, int64_t row, int64_t col, Tensor& whole) {
  const auto size = int64_t(size_of(whole.dtype()));
  const int64_t cols = part.shape()[1];
  ASSERT_EQ(part.dtype(), whole.dtype());
  for (int64_t r = 0; r < part.shape()[0]; ++r)
    std::copy_n(part.data() + r * cols * size, cols * size, whole.data() + ((row + r) * whole.shape()[1] + col) * size);
}

/// Quantized pieces of what `weight` gives in floats.
inline void expect_dequantized(const Pieces& pieces, const Tensor& expected) {
  Tensor whole = Tensor::zeros(pieces.shape, DType::f32);
  for (int64_t i = 0; i < pieces.count; ++i) {
    const Piece piece = pieces.read(i);
    place(dequantize(std::get<QMatrix>(piece.weight)), piece.row, piece.col, whole);
  }
  ASSERT_EQ(whole.shape(), expected.shape());
  EXPECT_TRUE(std::equal(whole.data(), whole.data() + whole.bytes(), expected.data()));
}

/// Every matrix of the checkpoint put together from its pieces, last piece first. Returns the most pieces of one
/// matrix.
inline int64_t expect_pieces_are_the_weights(const Checkpoint& model) {
  int64_t most = 0;
  for (const auto& [block, param] : params_of(model.spec())) {
    if (is_norm(param.role)) continue;
    SCOPED_TRACE(fmt::format("{} of block {}", name_of(param.role), block));
    const Pieces pieces = model.pieces(block, param);
    const Weight weight = model.weight(block, param);
    most = std::max(most, pieces.count);
    const auto* q = std::get_if<QMatrix>(&weight);
    if (!q && std::holds_alternative<QuantSpec>(pieces.type)) {
      expect_dequantized(pieces, std::get<Tensor>(weight));
      continue;
    }
    Tensor whole = Tensor::zeros(pieces.shape, q ? DType::u8 : std::get<DType>(pieces.type));
    for (int64_t i = pieces.count - 1; i >= 0; --i) {
      const Piece piece = pieces.read(i);
      EXPECT_EQ(piece.row % Pieces::kRows, 0);
      if (!q) {
        place(std::get<Tensor>(piece.weight), piece.row, piece.col, whole);
        continue;
      }
      const auto& part = std::get<QMatrix>(piece.weight);
      place(part.codes, piece.row, piece.col, whole);
      for (int64_t r = 0; r < part.rows(); ++r)
        for (int64_t c = 0; c < part.cols(); ++c) {
          const auto here = size_t(r * part.groups() + c / part.spec.group_size);
          const auto there = size_t((piece.row + r) * q->groups() + (piece.col + c) / q->spec.group_size);
          if (part.scales.as<float>()[here] != q->scales.as<float>()[there] ||
              (q->spec.offsets ? part.offsets.as<float>()[here] != q->offsets.as<float>()[there]
                               : part.zeros.as<uint8_t>()[here] != q->zeros.as<uint8_t>()[there]))
            ADD_FAILURE() << "the scale or zero point of " << piece.row + r << ", " << piece.col + c;
        }
    }
    const Tensor& expected = q ? q->codes : std::get<Tensor>(weight);
    EXPECT_EQ(pieces.shape, expected.shape());
    EXPECT_TRUE(std::equal(whole.data(), whole.data() + whole.bytes(), expected.data()));
    EXPECT_TRUE(!q || std::get<QuantSpec>(pieces.type) == q->spec);
  }
  return most;
}

}  // namespace awq
