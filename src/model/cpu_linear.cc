#include "model/cpu_linear.h"

#include <cstring>
#include <numeric>

#include "base/numeric.h"

namespace awq {
namespace {

using kernels::kPanel;

int64_t panels_of(int64_t rows) { return (rows + kPanel - 1) / kPanel; }

template <class T>
void pack_panel(const T* w, int64_t rows, int64_t cols, int64_t panel, T* out) {
  const int64_t first = panel * kPanel, n = std::min<int64_t>(kPanel, rows - first);
  for (int64_t c = 0; c < cols; ++c)
    for (int64_t r = 0; r < kPanel; ++r) out[c * kPanel + r] = r < n ? w[(first + r) * cols + c] : T(0);
}

// [rows, cols] -> [panels][cols][16], in the same type.
Tensor pack_panels(const Tensor& w, ThreadPool& pool) {
  const int64_t rows = w.shape()[0], cols = w.shape()[1], panels = panels_of(rows);
  Tensor out = Tensor::empty({panels, cols, kPanel}, w.dtype());
  pool.run(panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      if (w.dtype() == DType::f32)
        pack_panel(w.as<float>().data(), rows, cols, p, out.as<float>().data() + p * cols * kPanel);
      else
        pack_panel(w.bits16().data(), rows, cols, p, reinterpret_cast<uint16_t*>(out.data()) + p * cols * kPanel);
    }
  });
  return out;
}

void add_bias(const Tensor& bias, Tensor& y) {
  if (!bias) return;
  const auto b = bias.as<float>();
  auto out = y.as<float>();
  for (size_t i = 0; i < out.size(); ++i) out[i] += b[i % b.size()];
}

class FloatLinear final : public Linear {
 public:
  FloatLinear(const Tensor& w, const Tensor* bias, ThreadPool& pool, const kernels::KernelSet& k)
      : panels_(pack_panels(w, pool)),
        bias_(bias ? bias->clone() : Tensor()),
        rows_(w.shape()[0]),
        cols_(w.shape()[1]),
        pool_(pool),
        gemm_(w.dtype() == DType::f32    ? k.gemm_f32
              : w.dtype() == DType::bf16 ? k.gemm_bf16
                                         : k.gemm_f16) {}

  void operator()(const Tensor& x, Tensor& y) const override {
    const int64_t tokens = x.shape()[0], panels = panels_of(rows_);
    // Few panels and many tokens (a narrow matrix in prefill) are split by tokens instead.
    if (panels < 4 * pool_.size() && tokens >= 16 * pool_.size())
      pool_.run(tokens, 6, [&](int64_t begin, int64_t end) { part(x, y, begin, end, 0, panels); });
    else
      pool_.run(panels, 1, [&](int64_t begin, int64_t end) { part(x, y, 0, tokens, begin, end); });
    add_bias(bias_, y);
  }
  int64_t rows() const override { return rows_; }
  int64_t bytes() const override { return int64_t(panels_.bytes()); }
  DType arithmetic() const override { return DType::f32; }

 private:
  void part(const Tensor& x, Tensor& y, int64_t t0, int64_t t1, int64_t p0, int64_t p1) const {
    gemm_({.a = x.as<float>().data() + t0 * cols_,
           .a_row = cols_,
           .b = panels_.data() + size_t(p0 * cols_ * kPanel) * size_of(panels_.dtype()),
           .b_panel = cols_ * kPanel,
           .b_k = kPanel,
           .c = y.as<float>().data() + t0 * rows_ + p0 * kPanel,
           .c_row = rows_,
           .m = int32_t(t1 - t0),
           .n = int32_t(std::min(rows_, p1 * kPanel) - p0 * kPanel),
           .k = int32_t(cols_),
           .accumulate = false});
  }
  Tensor panels_, bias_;
  int64_t rows_, cols_;
  ThreadPool& pool_;
  void (*gemm_)(const kernels::Gemm&);
};

class IntLinear final : public Linear {
 public:
  IntLinear(const QMatrix& q, const Tensor* bias, ThreadPool& pool, const kernels::KernelSet& k)
      : w_(pack_int(q, pool)), bias_(bias ? bias->clone() : Tensor()), pool_(pool), k_(k) {}

  void operator()(const Tensor& x, Tensor& y) const override {
    const int64_t tokens = x.shape()[0], groups = w_.cols / w_.group, block = k_.token_block;
    Tensor codes = Tensor::empty({(tokens + block - 1) / block * block, w_.cols}, DType::i16),
           scales = Tensor::empty({tokens, groups}, DType::f32), sums = Tensor::empty({tokens, groups}, DType::i32);
    const kernels::ActI16 act{codes.as<int16_t>().data(),
                              scales.as<float>().data(),
                              sums.as<int32_t>().data(),
                              int32_t(tokens),
                              w_.cols,
                              w_.group};
    const auto quantize = [&](int64_t b, int64_t e) {
      k_.quantize_i16(x.as<float>().data(), act, int32_t(b), int32_t(e));
    };
    if (tokens < 8)
      quantize(0, tokens);  // a fork and a join would cost more
    else
      pool_.run(tokens, block, quantize);
    pool_.run(panels_of(w_.rows), 1, [&](int64_t b, int64_t e) {
      k_.matmul_i16(w_.view(), act, y.as<float>().data(), w_.rows, int32_t(b), int32_t(e));
    });
    add_bias(bias_, y);
  }
  int64_t rows() const override { return w_.rows; }
  int64_t bytes() const override { return int64_t(w_.stream.bytes()); }
  DType arithmetic() const override { return DType::i16; }

 private:
  PackedMatrix w_;
  Tensor bias_;
  ThreadPool& pool_;
  const kernels::KernelSet& k_;
};

}  // namespace

namespace {

// The lowest `bits` bits of n, reversed: the order of columns in a word of the stream.
constexpr int64_t reversed(int64_t n, int bits) {
  int64_t r = 0;
  for (int i = 0; i < bits; ++i) r |= (n >> i & 1) << (bits - 1 - i);
  return r;
}

// Codes of 16 rows and `group` columns starting at (row, col).
template <int kBits>
void pack_codes(const QMatrix& q, int64_t row, int64_t col, int32_t group, uint8_t* out) {
  constexpr int64_t kColumns = 32 / kBits;
  const auto codes = q.codes.as<uint8_t>();
  for (int64_t c = 0; c < group; c += kColumns)
    for (int64_t r = 0; r < kPanel; ++r, out += 4) {
      uint32_t word = 0;
      const uint8_t* from = codes.data() + (row + r) * q.cols() + col + c;
      for (int64_t i = 0; i < kColumns && row + r < q.rows(); ++i)
        word |= uint32_t(from[i]) << (kBits * reversed(i, kBits == 4 ? 3 : 2));
      std::memcpy(out, &word, 4);
    }
}

// Scales and zero points of a group of 16 rows.
void pack_grids(const QMatrix& q, int64_t row, int64_t group, bool half, uint8_t* out) {
  for (int64_t r = 0; r < kPanel; ++r) {
    const bool inside = row + r < q.rows();
    const auto at = size_t((row + r) * q.groups() + group);
    const float scale = inside ? q.scales.as<float>()[at] : 0.f;
    const uint16_t bits = f32_to_f16(scale);
    if (half)
      std::memcpy(out + 2 * r, &bits, 2);
    else
      std::memcpy(out + 4 * r, &scale, 4);
    out[(half ? 2 : 4) * kPanel + r] = inside ? q.zeros.as<uint8_t>()[at] : uint8_t(0);
  }
}

}  // namespace

PackedMatrix pack_int(const QMatrix& q, ThreadPool& pool) {
  const auto group = int32_t(std::gcd(q.spec.group_size, int(kernels::kMaxActGroup)));
  if ((q.spec.bits != 4 && q.spec.bits != 8) || group < 8)
    fail("load", "a matrix of {} bits in groups of {} cannot be run; 4 or 8 bits in groups of a multiple of 8 can",
         q.spec.bits, q.spec.group_size);
  const bool half = q.spec.scale_dtype == DType::f16;
  const int64_t groups = q.cols() / group, codes = 2 * q.spec.bits * group, block = codes + (half ? 3 : 5) * kPanel;
  PackedMatrix p{Tensor::empty({panels_of(q.rows()), groups, block}, DType::u8),
                 int32_t(q.rows()),
                 int32_t(q.cols()),
                 group,
                 q.spec.bits,
                 half};
  pool.run(panels_of(q.rows()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * groups; i < end * groups; ++i) {
      const int64_t row = i / groups * kPanel, col = i % groups * group;
      uint8_t* out = p.stream.as<uint8_t>().data() + i * block;
      (q.spec.bits == 4 ? pack_codes<4> : pack_codes<8>)(q, row, col, group, out);
      pack_grids(q, row, col / q.spec.group_size, half, out + codes);
    }
  });
  return p;
}

std::unique_ptr<Linear> cpu_linear(const Weight& w, const Tensor* bias, ThreadPool& pool, const kernels::KernelSet& k) {
  if (const auto* q = std::get_if<QMatrix>(&w)) return std::make_unique<IntLinear>(*q, bias, pool, k);
  return std::make_unique<FloatLinear>(std::get<Tensor>(w), bias, pool, k);
}

}  // namespace awq
