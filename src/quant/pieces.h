#pragma once
#include <functional>

#include "quant/qmatrix.h"

namespace awq {

class ThreadPool;

/// Rows row .. row + n and columns col .. col + m of a matrix, [n, m].
struct Piece {
  int64_t row = 0, col = 0;
  Weight weight;
};

/// A [rows, cols] matrix as a file offers it to who converts it: in pieces that are read when asked for, in the order
/// that suits the file, so that no whole matrix is ever in memory in the hub's layout. Formats read
/// nothing to make one.
/// Pieces cover the matrix without overlap and begin at multiples of kRows. A quantized piece consists of whole groups,
/// or of an equal part of one where a group has more than kColumns; its own spec.group_size then says how many columns.
struct Pieces {
  static constexpr int64_t kRows = 64, kColumns = 128;
  Shape shape;
  std::variant<DType, QuantSpec> type;
  int64_t count = 0;
  std::function<Piece(int64_t i)> read;  // from several threads; throws Error
  Tensor order = {};                     // of a quantized matrix whose columns are not in order: QMatrix::order
  Tensor inputs = {};                    // of a quantized matrix: QMatrix::inputs
  bool by_columns = false;               // a piece has all rows of some columns
};

/// Bands of rows, each a multiple of `step` or the last: `rows(begin, end)` gives one, of about `row_bytes` a row.
Pieces in_bands(Shape shape, std::variant<DType, QuantSpec> type, int64_t row_bytes, int64_t step,
                std::function<Weight(int64_t begin, int64_t end)> rows);
/// All rows of some columns, for files that have column after column: whole groups of at most kColumns, or a part of a
/// larger one.
Pieces in_columns(Shape shape, const QuantSpec& spec, std::function<QMatrix(int64_t begin, int64_t end)> columns);
/// A matrix that is in memory already; shares its data.
Pieces pieces_of(const Weight& w);
/// A float matrix whose pieces are bands of rows, in memory of its own. `check` sees each band, from several threads,
/// and may throw.
Tensor whole(const Pieces& w, ThreadPool& pool, const std::function<void(const Piece&)>& check = {});
/// A float matrix whose pieces are converted as they are read.
Pieces in_type(Pieces w, DType type);
/// A quantized matrix put together.
QMatrix whole_codes(const Pieces& w, ThreadPool& pool);
/// Round-to-nearest of a matrix whose pieces are bands of f32, one a thread at a time. Throws Error as quantize() of a
/// Tensor does, and what reading throws.
QMatrix quantize(const Pieces& w, const QuantSpec& spec, ThreadPool& pool, std::span<const Range> ranges = {});

}  // namespace awq
