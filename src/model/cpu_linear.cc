#include "model/cpu_linear.h"

#include <algorithm>
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

// y[t][begin .. end) += bias
void add_bias(const kernels::KernelSet& k, const Tensor& bias, Tensor& y, int64_t begin, int64_t end) {
  if (!bias) return;
  const int64_t tokens = y.shape()[0], rows = y.shape()[1];
  for (int64_t t = 0; t < tokens; ++t)
    k.add(bias.as<float>().data() + begin, y.as<float>().data() + t * rows + begin, end - begin);
}

class FloatLinear final : public Linear {
 public:
  FloatLinear(const Tensor& w, const Tensor* bias, ThreadPool& pool, const kernels::KernelSet& k)
      : panels_(pack_panels(w, pool)),
        bias_(bias ? bias->clone() : Tensor()),
        rows_(w.shape()[0]),
        cols_(w.shape()[1]),
        pool_(pool),
        k_(k),
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
    add_bias(k_, bias_, y, 0, rows_);
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
  const kernels::KernelSet& k_;
  void (*gemm_)(const kernels::Gemm&);
};

/// Activations of one kind and group size as integers; their memory.
template <class Code>
struct IntActivations {
  Tensor codes, scales, sums;
  kernels::ActInt<Code> view;

  IntActivations(const Tensor& x, int32_t group, const kernels::KernelSet& k) {
    const int64_t tokens = x.shape()[0], cols = x.shape()[1], block = k.token_block;
    const int64_t room = (tokens + block - 1) / block * block;
    codes = Tensor::empty({room, cols}, sizeof(Code) == 1 ? DType::i8 : DType::i16);
    scales = Tensor::empty({room, cols / group}, DType::f32);
    sums = Tensor::empty({room, cols / group}, DType::i32);
    view = {reinterpret_cast<Code*>(codes.data()),
            scales.as<float>().data(),
            sums.as<int32_t>().data(),
            int32_t(tokens),
            int32_t(cols),
            group};
  }
};

class IntLinear final : public Linear {
 public:
  IntLinear(const QMatrix& q, const Tensor* bias, const CpuContext& cpu)
      : w_(pack_int(q, cpu.pool)), bias_(bias ? bias->clone() : Tensor()), cpu_(cpu) {}

  void operator()(const Tensor& x, Tensor& y) const override {
    const IntLinear* self = this;
    multiply({&self, 1}, x, {&y, 1});
  }
  int64_t rows() const override { return w_.rows; }
  int64_t bytes() const override { return int64_t(w_.stream.bytes()); }
  DType arithmetic() const override { return narrow() ? DType::i8 : DType::i16; }

  /// Whether one set of integer activations serves both.
  bool reads_like(const IntLinear& other) const {
    return w_.cols == other.w_.cols && w_.group == other.w_.group && narrow() == other.narrow();
  }

  /// y[i] = f[i](x) for layers that read alike: activations are prepared once, all rows are one parallel region.
  static void multiply(std::span<const IntLinear* const> f, const Tensor& x, std::span<Tensor> y) {
    if (f[0]->cpu_.activations == Activations::bf16) {
      const Tensor rounded = x.to(DType::bf16).to(DType::f32);
      run<int16_t>(f, rounded, y);
    } else {
      (f[0]->narrow() ? run<int8_t> : run<int16_t>)(f, x, y);
    }
  }

 private:
  bool narrow() const { return cpu_.activations == Activations::int8 && w_.bits == 4; }

  template <class Code>
  static void run(std::span<const IntLinear* const> f, const Tensor& x, std::span<Tensor> y) {
    const CpuContext& cpu = f[0]->cpu_;
    const IntActivations<Code> act(x, f[0]->w_.group, cpu.kernels);
    const auto quantize = [&](int64_t b, int64_t e) {
      const float* from = x.as<float>().data();
      if constexpr (sizeof(Code) == 1)
        cpu.kernels.quantize_i8(from, act.view, int32_t(b), int32_t(e));
      else
        cpu.kernels.quantize_i16(from, act.view, int32_t(b), int32_t(e));
    };
    if (act.view.tokens < 8)
      quantize(0, act.view.tokens);  // a fork and a join would cost more
    else
      cpu.pool.run(act.view.tokens, cpu.kernels.token_block, quantize);
    int64_t panels = 0;
    for (const IntLinear* l : f) panels += panels_of(l->w_.rows);
    cpu.pool.run(panels, 1, [&](int64_t b, int64_t e) {
      for (size_t i = 0; i < f.size(); ++i) {
        const int64_t n = panels_of(f[i]->w_.rows);
        f[i]->part(act.view, y[i], std::clamp<int64_t>(b, 0, n), std::clamp<int64_t>(e, 0, n));
        b -= n, e -= n;
      }
    });
  }

  template <class Code>
  void part(const kernels::ActInt<Code>& x, Tensor& y, int64_t begin, int64_t end) const {
    if (begin >= end) return;
    float* to = y.as<float>().data();
    if constexpr (sizeof(Code) == 1)
      cpu_.kernels.matmul_i8(w_.view(), x, to, w_.rows, int32_t(begin), int32_t(end));
    else
      cpu_.kernels.matmul_i16(w_.view(), x, to, w_.rows, int32_t(begin), int32_t(end));
    add_bias(cpu_.kernels, bias_, y, begin * kPanel, std::min<int64_t>(end * kPanel, w_.rows));
  }

  PackedMatrix w_;
  Tensor bias_;
  CpuContext cpu_;
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

std::unique_ptr<Linear> cpu_linear(const Weight& w, const Tensor* bias, const CpuContext& cpu) {
  if (const auto* q = std::get_if<QMatrix>(&w)) return std::make_unique<IntLinear>(*q, bias, cpu);
  return std::make_unique<FloatLinear>(std::get<Tensor>(w), bias, cpu.pool, cpu.kernels);
}

void cpu_linears(std::span<const Linear* const> f, const Tensor& x, std::span<Tensor> y) {
  std::vector<const IntLinear*> alike;
  for (const Linear* l : f)
    if (const auto* i = dynamic_cast<const IntLinear*>(l); i && (alike.empty() || i->reads_like(*alike[0])))
      alike.push_back(i);
  if (alike.size() == f.size()) return IntLinear::multiply(alike, x, y);
  for (size_t i = 0; i < f.size(); ++i) (*f[i])(x, y[i]);
}

}  // namespace awq
