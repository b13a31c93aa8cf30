#include "quant/pieces.h"

#include <numeric>

#include "base/parallel.h"

namespace awq {
namespace {

// A band stays in the second-level cache beside what it is converted to.
constexpr int64_t kBandBytes = 512 << 10;

void put_rows(const Tensor& band, int64_t row, Tensor& whole) {
  std::copy_n(band.data(), band.bytes(), whole.rows(row, row + band.shape()[0]).data());
}

}  // namespace

Pieces in_bands(Shape shape, std::variant<DType, QuantSpec> type, int64_t row_bytes, int64_t step,
                std::function<Weight(int64_t begin, int64_t end)> rows) {
  const int64_t unit = std::lcm(step, Pieces::kRows), total = shape[0];
  const int64_t band = std::max<int64_t>(1, kBandBytes / (std::max<int64_t>(row_bytes, 1) * unit)) * unit;
  return {shape, type, (total + band - 1) / band, [=, rows = std::move(rows)](int64_t i) {
            return Piece{i * band, 0, rows(i * band, std::min(total, (i + 1) * band))};
          }};
}

Pieces in_columns(Shape shape, const QuantSpec& spec, std::function<QMatrix(int64_t begin, int64_t end)> columns) {
  const int64_t group = spec.group_size, total = shape[1];
  const int64_t width =
      group <= Pieces::kColumns ? Pieces::kColumns / group * group : std::gcd(group, Pieces::kColumns);
  return {shape,
          spec,
          (total + width - 1) / width,
          [=, columns = std::move(columns)](int64_t i) {
            return Piece{0, i * width, columns(i * width, std::min(total, (i + 1) * width))};
          },
          {},
          {},
          true};
}

Pieces pieces_of(const Weight& w) {
  if (const auto* t = std::get_if<Tensor>(&w))
    return in_bands(t->shape(), t->dtype(), t->shape()[1] * int64_t(size_of(t->dtype())), 1,
                    [t = *t](int64_t begin, int64_t end) { return t.rows(begin, end); });
  const auto& q = std::get<QMatrix>(w);
  Pieces pieces = in_bands(q.codes.shape(), q.spec, q.cols(), 1,
                           [q](int64_t begin, int64_t end) { return q.row_range(begin, end); });
  pieces.order = q.order;
  pieces.inputs = q.inputs;
  return pieces;
}

Tensor whole(const Pieces& w, ThreadPool& pool, const std::function<void(const Piece&)>& check) {
  Tensor all = Tensor::empty(w.shape, std::get<DType>(w.type));
  pool.each(w.count, [&](int64_t i) {
    const Piece band = w.read(i);
    if (check) check(band);
    put_rows(std::get<Tensor>(band.weight), band.row, all);
  });
  return all;
}

Pieces in_type(Pieces w, DType type) {
  if (std::get<DType>(w.type) == type) return w;
  w.type = type;
  w.read = [read = std::move(w.read), type](int64_t i) {
    Piece piece = read(i);
    piece.weight = std::get<Tensor>(piece.weight).to(type);
    return piece;
  };
  return w;
}

namespace {

/// What a piece has for columns [col, col + n), in units of `to`, whose rows are those of the matrix.
void put_block(const Tensor& from, int64_t row, int64_t col, Tensor& to) {
  const auto size = int64_t(size_of(to.dtype()));
  const int64_t n = from.shape()[1] * size, step = to.shape()[1] * size;
  for (int64_t r = 0; r < from.shape()[0]; ++r)
    std::copy_n(from.data() + r * n, n, to.data() + (row + r) * step + col * size);
}

}  // namespace

QMatrix whole_codes(const Pieces& w, ThreadPool& pool) {
  QMatrix q = QMatrix::empty(w.shape, std::get<QuantSpec>(w.type));
  q.order = w.order;
  q.inputs = w.inputs;
  pool.each(w.count, [&](int64_t i) {
    const Piece piece = w.read(i);
    const auto& part = std::get<QMatrix>(piece.weight);
    put_block(part.codes, piece.row, piece.col, q.codes);
    if (piece.col % q.spec.group_size) return;  // of a group whose first part has brought the scale
    const int64_t group = piece.col / q.spec.group_size;
    put_block(part.scales, piece.row, group, q.scales);
    put_block(q.spec.offsets ? part.offsets : part.zeros, piece.row, group, q.spec.offsets ? q.offsets : q.zeros);
  });
  return q;
}

QMatrix quantize(const Pieces& w, const QuantSpec& spec, ThreadPool& pool, std::span<const Range> ranges) {
  QMatrix q = QMatrix::empty(w.shape, spec);
  pool.each(w.count, [&](int64_t i) {
    const Piece band = w.read(i);
    const auto& rows = std::get<Tensor>(band.weight);
    const auto own =
        ranges.empty() ? ranges : ranges.subspan(size_t(band.row * q.groups()), size_t(rows.shape()[0] * q.groups()));
    const QMatrix part = quantize(rows, spec, own);
    put_rows(part.codes, band.row, q.codes);
    put_rows(part.scales, band.row, q.scales);
    put_rows(part.zeros, band.row, q.zeros);
  });
  return q;
}

}  // namespace awq
