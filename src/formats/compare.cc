#include "formats/compare.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/check.h"
#include "formats/load.h"
#include "formats/params.h"
#include "quant/regroup.h"

namespace awq {
namespace {

/// A matrix as it is stored; the embedding and norms as `weight` gives them.
Weight stored(const Checkpoint& model, int block, Param p, ThreadPool& pool) {
  if (is_norm(p.role)) return model.weight(block, p);
  const Pieces w = model.pieces(block, p);
  if (std::holds_alternative<QuantSpec>(w.type)) return whole_codes(w, pool);
  return model.weight(block, p);
}

/// What is added to code * scale. A float times 8 bits is exact in double.
double offset_of(const QMatrix& q, size_t group) {
  return q.spec.offsets ? double(q.offsets.as<float>()[group])
                        : -double(q.zeros.as<uint8_t>()[group]) * double(q.scales.as<float>()[group]);
}

constexpr int64_t kPart = 1 << 16;  // elements: sums do not depend on the number of threads

/// Whether same(begin, end) of all parts of n elements.
template <class Same>
bool all_parts(int64_t n, ThreadPool& pool, const Same& same) {
  std::atomic<bool> all = true;
  pool.each((n + kPart - 1) / kPart, [&](int64_t i) {
    if (all && !same(i * kPart, std::min(n, (i + 1) * kPart))) all = false;
  });
  return all;
}

bool equal(const Tensor& a, const Tensor& b, ThreadPool& pool) {
  if (!a || !b) return !a && !b;
  if (a.shape() != b.shape() || a.dtype() != b.dtype()) return false;
  return all_parts(int64_t(a.bytes()), pool, [&](int64_t begin, int64_t end) {
    return std::memcmp(a.data() + begin, b.data() + begin, size_t(end - begin)) == 0;
  });
}

bool equal(const QMatrix& a, const QMatrix& b, ThreadPool& pool) {
  if (!equal(a.codes, b.codes, pool) || !equal(a.scales, b.scales, pool) || !equal(a.order, b.order, pool) ||
      !equal(a.inputs, b.inputs, pool))
    return false;
  return all_parts(a.scales.shape().elements(), pool, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g)
      if (offset_of(a, size_t(g)) != offset_of(b, size_t(g))) return false;
    return true;
  });
}

/// Columns [col, col + m) of rows [row, row + n) of `whole`, in its own units, against all of `part`, [n, m].
bool equal_block(const Tensor& part, int64_t row, int64_t col, const Tensor& whole) {
  const auto size = int64_t(size_of(part.dtype()));
  const int64_t n = part.shape()[1] * size, step = whole.shape()[1] * size;
  for (int64_t r = 0; r < part.shape()[0]; ++r)
    if (std::memcmp(part.data() + r * n, whole.data() + (row + r) * step + col * size, size_t(n)) != 0) return false;
  return true;
}

bool equal_piece(const Piece& piece, const QMatrix& whole) {
  const auto& part = std::get<QMatrix>(piece.weight);
  const int64_t first = piece.col / whole.spec.group_size;
  if (!equal_block(part.codes, piece.row, piece.col, whole.codes)) return false;
  if (!equal_block(part.scales, piece.row, first, whole.scales)) return false;
  for (int64_t r = 0; r < part.rows(); ++r)
    for (int64_t g = 0; g < part.groups(); ++g)
      if (offset_of(part, size_t(r * part.groups() + g)) !=
          offset_of(whole, size_t((piece.row + r) * whole.groups() + first + g)))
        return false;
  return true;
}

/// Whether two matrices are the same codes and grids. One is put together and the other compared piece by piece as it
/// is read, which takes half the memory and two thirds of the time of putting both together. Grids that are cut
/// differently are not found to be the same.
bool same_codes(const Pieces& a, const Pieces& b, ThreadPool& pool) {
  const auto *qa = std::get_if<QuantSpec>(&a.type), *qb = std::get_if<QuantSpec>(&b.type);
  if (!qa || !qb || qa->bits != qb->bits || qa->group_size != qb->group_size || a.shape != b.shape) return false;
  if (!equal(a.order, b.order, pool) || !equal(a.inputs, b.inputs, pool)) return false;
  if (b.by_columns && !a.by_columns) return same_codes(b, a, pool);  // bands of rows are put together faster
  const QMatrix whole = whole_codes(b, pool);
  std::atomic<bool> same = true;
  pool.each(a.count, [&](int64_t i) {
    if (same && !equal_piece(a.read(i), whole)) same = false;
  });
  return same;
}

bool is_codes(const Weight& w) { return std::holds_alternative<QMatrix>(w); }

Tensor floats(const Weight& w) {
  return is_codes(w) ? dequantize(std::get<QMatrix>(w)) : std::get<Tensor>(w).to(DType::f32);
}

/// Of elements [begin, end), with `where` a number of an element.
struct Part {
  double largest = 0, sum = 0;
  int64_t at = 0;
};

Part part_of(const float* a, const float* b, int64_t begin, int64_t end) {
  Part p;
  for (int64_t i = begin; i < end; ++i) {
    const double d = std::abs(double(a[i]) - double(b[i]));
    p.sum += d;
    if (d > p.largest || std::isnan(d)) p.largest = std::isnan(d) ? INFINITY : d, p.at = i;
  }
  return p;
}

void add_difference(const Tensor& a, const Tensor& b, const std::string& name, ThreadPool& pool, Difference& d) {
  if (a.shape() != b.shape())
    fail("compare", "{}: {} and {} are no matrices of one model", name, a.shape().text(), b.shape().text());
  const int64_t n = a.shape().elements();
  d.weights += n;
  std::vector<Part> parts(size_t((n + kPart - 1) / kPart));
  pool.each(int64_t(parts.size()), [&](int64_t i) {
    parts[size_t(i)] = part_of(a.as<float>().data(), b.as<float>().data(), i * kPart, std::min(n, (i + 1) * kPart));
  });
  const int64_t cols = a.shape()[-1];
  for (const Part& p : parts) {
    d.sum += p.sum;
    if (p.largest <= d.largest) continue;
    d.largest = p.largest;
    d.where = fmt::format("{}, row {}, column {}", name, p.at / cols, p.at % cols);
  }
}

template <class Bits>
bool is_finite(const Tensor& t, Bits exponent, ThreadPool& pool) {
  const auto* bits = reinterpret_cast<const Bits*>(t.data());
  return all_parts(t.shape().elements(), pool, [&](int64_t begin, int64_t end) {
    return std::none_of(bits + begin, bits + end, [=](Bits v) { return (v & exponent) == exponent; });
  });
}

/// The same bytes of one type, without what would make a difference that is no number.
bool same_floats(const Tensor& a, const Tensor& b, ThreadPool& pool) {
  if (!equal(a, b, pool)) return false;
  if (a.dtype() == DType::f32) return is_finite<uint32_t>(a, 0x7f800000, pool);
  if (a.dtype() == DType::f16) return is_finite<uint16_t>(a, 0x7c00, pool);
  return a.dtype() == DType::bf16 && is_finite<uint16_t>(a, 0x7f80, pool);
}

void add_difference(const Weight& a, const Weight& b, const std::string& name, ThreadPool& pool, Difference& d) {
  if (is_codes(a) && is_codes(b)) {
    const auto &qa = std::get<QMatrix>(a), &qb = std::get<QMatrix>(b);
    const int group = std::gcd(qa.spec.group_size, qb.spec.group_size);  // formats cut groups into parts
    if (qa.spec.bits == qb.spec.bits && equal(in_groups_of(qa, group), in_groups_of(qb, group), pool)) {
      d.weights += qa.codes.shape().elements();
      return;
    }
    d.same_codes = false;
  }
  if (!is_codes(a) && !is_codes(b) && same_floats(std::get<Tensor>(a), std::get<Tensor>(b), pool)) {
    d.weights += std::get<Tensor>(a).shape().elements();
    return;
  }
  add_difference(floats(a), floats(b), name, pool, d);
}

void add_matrix(const Checkpoint& a, const Checkpoint& b, int block, Param p, const std::string& name, ThreadPool& pool,
                Difference& d) {
  if (!is_norm(p.role)) {
    const Pieces left = a.pieces(block, p);
    if (same_codes(left, b.pieces(block, p), pool)) {
      d.weights += left.shape.elements();
      return;
    }
  }
  const Weight left = stored(a, block, p, pool), right = stored(b, block, p, pool);
  add_difference(left, right, name, pool, d);
  for (const Weight* w : {&left, &right})
    if (const auto* t = std::get_if<Tensor>(w)) drop_pages({t->data(), t->bytes()}, t->owner());
}

}  // namespace

Difference compare(const Checkpoint& a, const Checkpoint& b, ThreadPool& pool) {
  const auto params = params_of(a.spec());
  // Some formats have one name for two families, whose blocks are then the same.
  if (a.spec().blocks != b.spec().blocks || params != params_of(b.spec()))
    fail("compare", "{} and {} are of different models", a.described_in(), b.described_in());
  Difference d;
  for (const auto& [block, p] : params) {
    const std::string name = parameter_name(a.spec(), block, p);
    add_matrix(a, b, block, p, name, pool, d);
    if (has_bias(a.spec(), block, p)) {
      const auto bias = [&, place = block, param = p](const Checkpoint& c) {
        return c.bias(place, param).reshaped({1, shape_of(c.spec(), place, param)[0]});
      };
      add_difference(bias(a), bias(b), name + " (bias)", pool, d);
    }
  }
  return d;
}

}  // namespace awq
