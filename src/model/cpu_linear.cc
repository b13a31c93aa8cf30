#include "model/cpu_linear.h"

#include <cstring>
#include <numeric>

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

class I4Linear final : public Linear {
 public:
  I4Linear(const QMatrix& q, const Tensor* bias, ThreadPool& pool, const kernels::KernelSet& k)
      : w_(pack_i4(q, pool)), bias_(bias ? bias->clone() : Tensor()), pool_(pool), k_(k) {}

  void operator()(const Tensor& x, Tensor& y) const override {
    const int64_t tokens = x.shape()[0], groups = w_.cols / w_.group;
    Tensor codes = Tensor::empty({tokens, w_.cols}, DType::i16), scales = Tensor::empty({tokens, groups}, DType::f32),
           sums = Tensor::empty({tokens, groups}, DType::i32);
    const kernels::ActI16 act{codes.as<int16_t>().data(),
                              scales.as<float>().data(),
                              sums.as<int32_t>().data(),
                              int32_t(tokens),
                              w_.cols,
                              w_.group};
    const auto quantize = [&](int64_t b, int64_t e) {
      k_.quantize_i16(x.as<float>().data() + b * w_.cols, int32_t(e - b), w_.cols, w_.group,
                      codes.as<int16_t>().data() + b * w_.cols, scales.as<float>().data() + b * groups,
                      sums.as<int32_t>().data() + b * groups);
    };
    if (tokens < 8)
      quantize(0, tokens);  // a fork and a join would cost more
    else
      pool_.run(tokens, 1, quantize);
    pool_.run(panels_of(w_.rows), 1, [&](int64_t b, int64_t e) {
      k_.matmul_i4({w_.stream.as<uint8_t>().data(), w_.rows, w_.cols, w_.group}, act, y.as<float>().data(), w_.rows,
                   int32_t(b), int32_t(e));
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

// Codes of 16 rows and `group` columns starting at (row, col) -> nibbles as kernels.h orders them.
void pack_codes(const QMatrix& q, int64_t row, int64_t col, int32_t group, uint32_t* out) {
  const auto codes = q.codes.as<uint8_t>();
  for (int64_t c = 0; c < group; c += 8)
    for (int64_t r = 0; r < kPanel; ++r) {
      uint32_t word = 0;
      if (row + r < q.rows())
        for (int64_t i = 0; i < 8; ++i)
          word |= uint32_t(codes[size_t((row + r) * q.cols() + col + c + (i < 4 ? 2 * i : 2 * i - 7))]) << (4 * i);
      out[c / 8 * kPanel + r] = word;
    }
}

void pack_grids(const QMatrix& q, int64_t row, int64_t group, float* scales, uint8_t* zeros) {
  for (int64_t r = 0; r < kPanel; ++r) {
    const bool inside = row + r < q.rows();
    const auto at = size_t((row + r) * q.groups() + group);
    scales[r] = inside ? q.scales.as<float>()[at] : 0.f;
    zeros[r] = inside ? q.zeros.as<uint8_t>()[at] : uint8_t(0);
  }
}

}  // namespace

PackedMatrix pack_i4(const QMatrix& q, ThreadPool& pool) {
  const auto group = int32_t(std::gcd(q.spec.group_size, int(kernels::kMaxActGroup)));
  if (q.spec.bits != 4 || group < 8)
    fail("load", "a matrix of {} bits in groups of {} cannot be run; 4 bits in groups of a multiple of 8 can",
         q.spec.bits, q.spec.group_size);
  const int64_t groups = q.cols() / group, block = 8 * group + 80;
  PackedMatrix p{Tensor::empty({panels_of(q.rows()), groups, block}, DType::u8), int32_t(q.rows()), int32_t(q.cols()),
                 group};
  pool.run(panels_of(q.rows()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * groups; i < end * groups; ++i) {
      const int64_t row = i / groups * kPanel, col = i % groups * group;
      uint8_t* out = p.stream.as<uint8_t>().data() + i * block;
      pack_codes(q, row, col, group, reinterpret_cast<uint32_t*>(out));
      pack_grids(q, row, col / q.spec.group_size, reinterpret_cast<float*>(out + 8 * group), out + 8 * group + 64);
    }
  });
  return p;
}

std::unique_ptr<Linear> cpu_linear(const Weight& w, const Tensor* bias, ThreadPool& pool, const kernels::KernelSet& k) {
  if (const auto* q = std::get_if<QMatrix>(&w)) return std::make_unique<I4Linear>(*q, bias, pool, k);
  return std::make_unique<FloatLinear>(std::get<Tensor>(w), bias, pool, k);
}

}  // namespace awq
