#include "tensor/transpose.h"

#include <gtest/gtest.h>

#include <vector>

namespace awq {
namespace {

// Rows and columns of no, one and several vectors with every kind of rest, within wider matrices whose other elements
// stay as they are.
template <class T>
void check(int64_t rows, int64_t cols) {
  const int64_t from_row = cols + 3, to_row = rows + 5;
  std::vector<T> from(size_t(rows * from_row)), to(size_t(cols * to_row), T(7));
  for (size_t i = 0; i < from.size(); ++i) from[i] = T(i * 31 + 11);
  transpose(from.data(), from_row, rows, cols, to.data(), to_row);
  for (int64_t c = 0; c < cols; ++c)
    for (int64_t r = 0; r < to_row; ++r)
      ASSERT_EQ(to[size_t(c * to_row + r)], r < rows ? from[size_t(r * from_row + c)] : T(7))
          << rows << " x " << cols << " at " << r << ", " << c;
}

TEST(Transpose, EverySizeAndType) {
  for (int64_t rows : {0, 1, 3, 4, 8, 15, 16, 17, 40})
    for (int64_t cols : {0, 1, 4, 7, 16, 19, 64}) {
      check<uint8_t>(rows, cols);
      check<uint16_t>(rows, cols);
      check<uint32_t>(rows, cols);
      check<float>(rows, cols);
    }
}

}  // namespace
}  // namespace awq
