#pragma once
#include <bit>
#include <random>
#include <vector>

#include "base/numeric.h"
#include "kernels/kernels.h"

namespace awq::kernels {

/// A matrix of 4- or 8-bit codes as plain arrays, and its stream written from the text of kernels.h. Scales are 16-bit
/// for an even seed.
struct Matrix {
  int rows, cols, group, bits;
  bool half;
  std::vector<uint8_t> codes, zeros;  // [rows][cols], [rows][groups]
  std::vector<float> scales;
  int groups() const { return cols / group; }
  int panels() const { return (rows + kPanel - 1) / kPanel; }

  Matrix(int r, int c, int g, unsigned seed, int b = 4)
      : rows(r),
        cols(c),
        group(g),
        bits(b),
        half(seed % 2 == 0),
        codes(size_t(r * c)),
        zeros(size_t(r * c / g)),
        scales(zeros.size()) {
    std::mt19937 rng(seed);
    for (auto& v : codes) v = uint8_t(rng() % (1u << bits));
    for (auto& v : zeros) v = uint8_t(rng() % (1u << bits));
    for (auto& v : scales) v = float(1 + rng() % 1000) * 1.7e-5f;
    for (auto& v : scales) v = half ? f16_to_f32(f32_to_f16(v)) : v;
  }

  std::vector<uint8_t> stream() const {
    std::vector<uint8_t> out;
    for (int p = 0; p < panels(); ++p)
      for (int g = 0; g < groups(); ++g) write(out, p * kPanel, g);
    return out;
  }

  PackedInt view(const uint8_t* bytes) const { return {bytes, rows, cols, group, bits, half}; }

 private:
  static void put(std::vector<uint8_t>& out, uint32_t v, int bytes) {
    for (int i = 0; i < bytes; ++i) out.push_back(uint8_t(v >> 8 * i));
  }
  void write(std::vector<uint8_t>& out, int row, int g) const {
    static constexpr int kOrder4[] = {0, 4, 2, 6, 1, 5, 3, 7}, kOrder8[] = {0, 2, 1, 3};
    const int columns = 32 / bits;
    for (int c = g * group; c < (g + 1) * group; c += columns)
      for (int r = row; r < row + kPanel; ++r) {
        uint32_t word = 0;
        for (int i = 0; i < columns && r < rows; ++i)
          word |= uint32_t(codes[size_t(r * cols + c + (bits == 4 ? kOrder4 : kOrder8)[i])]) << bits * i;
        put(out, word, 4);
      }
    for (int r = row; r < row + kPanel; ++r) {
      const float scale = r < rows ? scales[size_t(r * groups() + g)] : 0.f;
      put(out, half ? f32_to_f16(scale) : std::bit_cast<uint32_t>(scale), half ? 2 : 4);
    }
    for (int r = row; r < row + kPanel; ++r) out.push_back(r < rows ? zeros[size_t(r * groups() + g)] : uint8_t(0));
  }
};

}  // namespace awq::kernels
