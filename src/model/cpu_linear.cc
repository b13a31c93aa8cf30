#include "model/cpu_linear.h"

#include <algorithm>

#include "model/cpu_pack.h"

namespace awq {
namespace {

using kernels::kPanel;

int64_t panels_of(int64_t rows) { return (rows + kPanel - 1) / kPanel; }

// y[t][begin .. end) += bias
void add_bias(const kernels::KernelSet& k, const Tensor& bias, Tensor& y, int64_t begin, int64_t end) {
  if (!bias) return;
  const int64_t tokens = y.shape()[0], rows = y.shape()[1];
  for (int64_t t = 0; t < tokens; ++t)
    k.add(bias.as<float>().data() + begin, y.as<float>().data() + t * rows + begin, end - begin);
}

class FloatLinear final : public Linear {
 public:
  FloatLinear(const Pieces& w, const Tensor* bias, ThreadPool& pool, const kernels::KernelSet& k)
      : panels_(pack_panels(w, pool)),
        bias_(bias ? bias->clone() : Tensor()),
        rows_(w.shape[0]),
        cols_(w.shape[1]),
        pool_(pool),
        k_(k),
        gemm_(panels_.dtype() == DType::f32    ? k.gemm_f32
              : panels_.dtype() == DType::bf16 ? k.gemm_bf16
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
  IntLinear(const Pieces& w, const Tensor* bias, const CpuContext& cpu)
      : w_(pack_int(w, cpu.pool)), bias_(bias ? bias->clone() : Tensor()), cpu_(cpu) {}

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

std::unique_ptr<Linear> cpu_linear(const Pieces& w, const Tensor* bias, const CpuContext& cpu) {
  if (std::holds_alternative<QuantSpec>(w.type)) return std::make_unique<IntLinear>(w, bias, cpu);
  return std::make_unique<FloatLinear>(w, bias, cpu.pool, cpu.kernels);
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
