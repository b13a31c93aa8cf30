#include "model/cpu_linear.h"

#include "model/cpu_pack.h"

namespace awq {
namespace {

using kernels::kPanel;

int64_t panels_of(int64_t rows) { return (rows + kPanel - 1) / kPanel; }

void add_bias(const Tensor& bias, Tensor& y) {
  if (!bias) return;
  const auto b = bias.as<float>();
  auto out = y.as<float>();
  for (size_t i = 0; i < out.size(); ++i) out[i] += b[i % b.size()];
}

class FloatLinear final : public Linear {
 public:
  FloatLinear(const Pieces& w, const Tensor* bias, ThreadPool& pool, const kernels::KernelSet& k)
      : panels_(pack_panels(w, pool)),
        bias_(bias ? bias->clone() : Tensor()),
        rows_(w.shape[0]),
        cols_(w.shape[1]),
        pool_(pool),
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
    add_bias(bias_, y);
  }
  int64_t rows() const override { return rows_; }
  int64_t bytes() const override { return int64_t(panels_.bytes()); }

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
  IntLinear(const Pieces& w, const Tensor* bias, ThreadPool& pool, const kernels::KernelSet& k)
      : w_(pack_int(w, pool)), bias_(bias ? bias->clone() : Tensor()), pool_(pool), k_(k) {}

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
      k_.matmul_i16(w_.view(), act, y.as<float>().data(), w_.rows, int32_t(b), int32_t(e));
    });
    add_bias(bias_, y);
  }
  int64_t rows() const override { return w_.rows; }
  int64_t bytes() const override { return int64_t(w_.stream.bytes()); }

 private:
  PackedMatrix w_;
  Tensor bias_;
  ThreadPool& pool_;
  const kernels::KernelSet& k_;
};

}  // namespace

std::unique_ptr<Linear> cpu_linear(const Pieces& w, const Tensor* bias, ThreadPool& pool, const kernels::KernelSet& k) {
  if (std::holds_alternative<QuantSpec>(w.type)) return std::make_unique<IntLinear>(w, bias, pool, k);
  return std::make_unique<FloatLinear>(w, bias, pool, k);
}

}  // namespace awq
