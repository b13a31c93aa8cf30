#include "model/cpu_pack.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/numeric.h"
#include "tensor/transpose.h"

namespace awq {
namespace {

using kernels::kPanel;
static_assert(Pieces::kRows % kPanel == 0, "a piece is whole panels");
static_assert(Pieces::kColumns % kernels::kMaxActGroup == 0, "a piece is whole groups of the stream");

int64_t panels(int64_t rows) { return (rows + kPanel - 1) / kPanel; }

/// Where the parts of a PackedInt are; bytes.
struct Layout {
  int32_t bits, group;
  bool half;
  int64_t groups;  // of a row
  int64_t codes() const { return int64_t(2) * bits * group; }
  int64_t block() const { return codes() + (half ? 3 : 5) * kPanel; }  // of a group of a panel
};

Layout layout_of(const Pieces& w) {
  const auto& q = std::get<QuantSpec>(w.type);
  const auto group = int32_t(std::gcd(q.group_size, int(kernels::kMaxActGroup)));
  if (q.bits < 2 || q.bits > 8 || group < 8)
    fail("load", "a matrix of {} bits in groups of {} cannot be run; 2 to 8 bits in groups of a multiple of 8 can",
         q.bits, q.group_size);
  return {q.bits <= 4 ? 4 : 8, group, q.scale_dtype == DType::f16, w.shape[1] / group};
}

Shape stream_shape(const Pieces& w, const Layout& l) { return {panels(w.shape[0]), l.groups, l.block()}; }
Shape rest_shape(const Pieces& w, const Layout& l) { return {panels(w.shape[0]), l.groups, kPanel}; }
Shape panel_shape(const Shape& s) { return {panels(s[0]), s[1], kPanel}; }

/// Writes to each page, from all threads: else those that begin the same huge page together would both clear it.
void touch(Tensor& t, ThreadPool& pool) {
  constexpr int64_t kPart = 2 << 20, kPage = 4096;
  const auto bytes = int64_t(t.bytes());
  pool.each((bytes + kPart - 1) / kPart, [&](int64_t i) {
    for (int64_t at = i * kPart; at < std::min(bytes, (i + 1) * kPart); at += kPage) t.data()[at] = std::byte(0);
  });
}

// Vectors of 16 bytes, which every CPU has: plain loops over these came out three times slower.
typedef uint32_t Words __attribute__((vector_size(16)));
typedef uint64_t Codes __attribute__((vector_size(16)));

/// The middle two bytes of each word change places.
template <class T>
T swapped(T w) {
  const T differ = (w ^ w >> 8) & 0xff00;
  return w ^ differ ^ differ << 8;
}

/// Codes of 4 bits, one a byte, to words in the stream's order 0 4 2 6 1 5 3 7.
void words_of_4_bits(const uint8_t* codes, int64_t n, uint32_t* out) {
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    Codes c[2];
    std::memcpy(c, codes + 8 * i, 32);
    // The low half of each pair of words is then columns 0 4, 1 5, 2 6, 3 7.
    const Words low = Words(c[0] | c[0] >> 28), high = Words(c[1] | c[1] >> 28);
    const Words w = swapped(Words(__builtin_shufflevector(low, high, 0, 2, 4, 6)));
    std::memcpy(out + i, &w, 16);
  }
  for (; i < n; ++i) {
    uint64_t c = 0;
    std::memcpy(&c, codes + 8 * i, 8);
    out[i] = swapped(uint32_t(c | c >> 28));
  }
}

/// Codes of 8 bits to words in the order 0 2 1 3.
void words_of_8_bits(const uint8_t* codes, int64_t n, uint32_t* out) {
  std::memcpy(out, codes, size_t(n) * 4);
  for (int64_t i = 0; i < n; ++i) out[i] = swapped(out[i]);
}

constexpr int64_t kMaxWords = kernels::kMaxActGroup / 4;

/// Codes of at most 16 rows and a group of columns.
void pack_codes(const uint8_t* codes, int64_t cols, int64_t rows, const Layout& l, uint8_t* out) {
  uint32_t words[kPanel][kMaxWords];
  const int64_t n = l.group * l.bits / 32;
  for (int64_t r = 0; r < kPanel; ++r)
    if (r >= rows)
      std::memset(words[r], 0, size_t(n) * 4);
    else if (l.bits == 4)
      words_of_4_bits(codes + r * cols, n, words[r]);
    else
      words_of_8_bits(codes + r * cols, n, words[r]);
  transpose(words[0], kMaxWords, kPanel, n, reinterpret_cast<uint32_t*>(out), kPanel);
}

/// Scales and zero points of a group of at most 16 rows.
void pack_grids(const float* scales, const uint8_t* zeros, int64_t step, int64_t rows, bool half, uint8_t* out) {
  std::memset(out, 0, size_t(half ? 3 : 5) * kPanel);
  for (int64_t r = 0; r < rows; ++r) {
    const float scale = scales[r * step];
    if (const uint16_t bits = half ? f32_to_f16(scale) : uint16_t(0); half)
      std::memcpy(out + 2 * r, &bits, 2);
    else
      std::memcpy(out + 4 * r, &scale, 4);
    out[(half ? 2 : 4) * kPanel + r] = zeros[r * step];
  }
}

/// The zero point nearest to an offset; 0 where the scale is 0 or not a number.
uint8_t nearest_zero(float offset, float scale, int bits) {
  const float zero = std::nearbyint(-offset / scale);
  return zero > 0 ? uint8_t(std::min(zero, float((1 << bits) - 1))) : uint8_t(0);
}

/// q with zero points, and of groups what is left of their offsets.
QMatrix split_offsets(const QMatrix& q, int bits, Tensor& rest) {
  QMatrix out = q;
  out.zeros = Tensor::empty(q.scales.shape(), DType::u8);
  rest = Tensor::empty(q.scales.shape(), DType::f32);
  const auto scales = q.scales.as<float>(), offsets = q.offsets.as<float>();
  for (size_t g = 0; g < scales.size(); ++g) {
    const uint8_t zero = nearest_zero(offsets[g], scales[g], bits);
    out.zeros.as<uint8_t>()[g] = zero;
    rest.as<float>()[g] = float(double(offsets[g]) + zero * double(scales[g]));  // rounded once
  }
  return out;
}

/// Rests [rows, groups] of a piece to [panels, groups, 16]; true if one is not 0.
bool put_rest(const Piece& piece, const Tensor& rest, const Layout& l, float* to) {
  const auto& q = std::get<QMatrix>(piece.weight);
  bool any = false;
  for (int64_t r = 0; r < q.rows(); ++r)
    for (int64_t c = 0; c < q.cols(); c += l.group) {
      const float v = rest.as<float>()[size_t(r * q.groups() + c / q.spec.group_size)];
      const int64_t row = piece.row + r, group = (piece.col + c) / l.group;
      to[(row / kPanel * l.groups + group) * kPanel + row % kPanel] = v;
      any = any || v != 0;
    }
  return any;
}

void pack_piece(const Piece& piece, const QMatrix& q, const Layout& l, uint8_t* stream) {
  const int64_t cols = q.cols(), groups = q.groups();
  for (int64_t r = 0; r < q.rows(); r += kPanel)
    for (int64_t c = 0; c < cols; c += l.group) {
      const int64_t rows = std::min<int64_t>(kPanel, q.rows() - r), g = r * groups + c / q.spec.group_size;
      uint8_t* out = stream + ((piece.row + r) / kPanel * l.groups + (piece.col + c) / l.group) * l.block();
      pack_codes(q.codes.as<uint8_t>().data() + r * cols + c, cols, rows, l, out);
      pack_grids(q.scales.as<float>().data() + g, q.zeros.as<uint8_t>().data() + g, groups, rows, l.half,
                 out + l.codes());
    }
}

constexpr int64_t kColumns = 256;  // of a panel, that stay in the first-level cache between its halves

template <class T>
void pack_rows(const T* w, int64_t rows, int64_t cols, T* out) {
  for (int64_t r = 0; r < rows; r += kPanel) {
    const int64_t n = std::min<int64_t>(kPanel, rows - r);
    if (n < kPanel) std::fill_n(out + r * cols, cols * kPanel, T(0));
    for (int64_t c = 0; c < cols; c += kColumns)
      transpose(w + r * cols + c, cols, n, std::min(kColumns, cols - c), out + (r * cols + c * kPanel), kPanel);
  }
}

}  // namespace

PackedMatrix pack_int(const Pieces& w, ThreadPool& pool) {
  const Layout l = layout_of(w);
  PackedMatrix p{.stream = Tensor::empty(stream_shape(w, l), DType::u8),
                 .rest = {},
                 .order = w.order,
                 .inputs = w.inputs,
                 .rows = int32_t(w.shape[0]),
                 .cols = int32_t(w.shape[1]),
                 .group = l.group,
                 .bits = l.bits,
                 .half_scales = l.half};
  if (std::get<QuantSpec>(w.type).offsets) p.rest = Tensor::zeros(rest_shape(w, l), DType::f32);
  touch(p.stream, pool);
  std::atomic<bool> any = false;
  pool.each(w.count, [&](int64_t i) {
    const Piece piece = w.read(i);
    const auto& q = std::get<QMatrix>(piece.weight);
    if (!p.rest) return pack_piece(piece, q, l, p.stream.as<uint8_t>().data());
    Tensor rest;
    pack_piece(piece, split_offsets(q, l.bits, rest), l, p.stream.as<uint8_t>().data());
    if (put_rest(piece, rest, l, p.rest.as<float>().data())) any = true;
  });
  if (!any) p.rest = Tensor();
  return p;
}

Tensor pack_panels(const Pieces& w, ThreadPool& pool) {
  Tensor out = Tensor::empty(panel_shape(w.shape), std::get<DType>(w.type));
  touch(out, pool);
  pool.each(w.count, [&](int64_t i) {
    const Piece piece = w.read(i);
    const auto& t = std::get<Tensor>(piece.weight);
    const int64_t rows = t.shape()[0], cols = t.shape()[1], at = piece.row * cols;
    if (t.dtype() == DType::f32)
      pack_rows(t.as<float>().data(), rows, cols, out.as<float>().data() + at);
    else
      pack_rows(t.bits16().data(), rows, cols, reinterpret_cast<uint16_t*>(out.data()) + at);
  });
  return out;
}

int64_t packed_bytes(const Pieces& w) {
  if (const auto* t = std::get_if<DType>(&w.type)) return panel_shape(w.shape).elements() * int64_t(size_of(*t));
  const Layout l = layout_of(w);
  const bool offsets = std::get<QuantSpec>(w.type).offsets;
  return stream_shape(w, l).elements() + (offsets ? rest_shape(w, l).elements() * 4 : 0);
}

}  // namespace awq
