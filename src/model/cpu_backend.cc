#include <algorithm>
#include <cmath>

#include "base/numeric.h"
#include "base/parallel.h"
#include "kernels/kernels.h"
#include "model/backend_parts.h"
#include "model/cpu_attention.h"
#include "model/cpu_linear.h"
#include "model/cpu_pack.h"

namespace awq {
namespace {

class CpuBackend final : public Backend {
 public:
  CpuBackend(ThreadPool& pool, const kernels::KernelSet& kernels, Activations activations, Tiles tiles)
      : kernels_(kernels), pool_(pool), activations_(activations), tiles_(tiles) {}
  std::string_view name() const override { return "cpu"; }
  std::string_view kernels() const override { return kernels_.name; }
  int threads() const override { return pool_.size(); }
  Tensor empty(Shape shape) override { return Tensor::empty(shape, DType::f32); }
  std::unique_ptr<Linear> linear(const Pieces& w, const Tensor* bias) override {
    return cpu_linear(w, bias, {pool_, kernels_, activations_, tiles_});
  }
  int64_t linear_bytes(const Pieces& w) const override { return packed_bytes(w); }
  void apply(std::span<const Linear* const> f, const Tensor& x, std::span<Tensor> y, int64_t batch) override {
    cpu_linears(f, x, y, batch);
  }
  std::unique_ptr<KvCache> kv_cache(std::span<const BlockSpec> blocks, DType dtype) override {
    return std::make_unique<CpuKvCache>(blocks, dtype);
  }

  void embed(const Tensor& table, std::span<const int32_t> tokens, float scale, Tensor& x) override {
    require_rows(table, tokens);
    copy_rows(table, tokens, scale, x.as<float>().data());
  }

  void norm(const Tensor& x, const Tensor& gain, const Tensor& bias, const NormSpec& norm, int64_t width,
            Tensor& y) override {
    const Tensor ones = gain ? gain : constant(width, 1 - norm.gain_offset), zeros = bias ? bias : constant(width, 0);
    const auto runs = [&](int64_t first, int64_t n, int64_t of_gain) {
      const float *in = x.as<float>().data() + first * width, *g = ones.as<float>().data() + of_gain * width,
                  *added = zeros.as<float>().data() + (bias ? of_gain * width : 0);
      float* out = y.as<float>().data() + first * width;
      if (norm.kind == NormKind::rms)
        kernels_.rms_norm(in, g, norm.gain_offset, norm.eps, int32_t(n), int32_t(width), out);
      else
        kernels_.layer_norm(in, g, added, norm.gain_offset, norm.eps, int32_t(n), int32_t(width), out);
    };
    const int64_t own = ones.shape()[0] / width;  // runs of a row that have gains of their own
    rows(x.shape().elements() / (own * width), own * width, [&](int64_t b, int64_t e) {
      if (own == 1) return runs(b, e - b, 0);
      for (int64_t r = b * own; r < e * own; ++r) runs(r, 1, r % own);
    });
  }

  void rope(Tensor& x, Batch batch, std::span<const float> frequencies, int head_dim, int first,
            bool interleaved) override {
    const int64_t width = x.shape()[1], half = int64_t(frequencies.size());
    const RopeTable& table = ropes_.of(batch, frequencies).table;
    rows(x.shape()[0], width, [&](int64_t b, int64_t e) {
      for (int64_t t = b; t < e; ++t)
        kernels_.rope(x.as<float>().data() + t * width + first, table.cosines.data() + t * half,
                      table.sines.data() + t * half, int32_t(width / head_dim), head_dim, int32_t(2 * half),
                      interleaved);
    });
  }

  void join_heads(const Tensor& own, const Tensor& shared, int heads, Tensor& y) override {
    const int64_t part = own.shape()[1] / heads, rest = shared.shape()[1];
    rows(y.shape()[0], y.shape()[1], [&](int64_t b, int64_t e) {
      float* to = y.as<float>().data() + b * y.shape()[1];
      for (int64_t i = b * heads; i < e * heads; ++i) {
        to = std::copy_n(own.as<float>().data() + i * part, part, to);
        to = std::copy_n(shared.as<float>().data() + i / heads * rest, rest, to);
      }
    });
  }

  void attention(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const float> sinks, Batch batch,
                 int block, const AttentionSpec& spec, Tensor& y) override {
    cpu_attention(pool_, kernels_, q, k, v, sinks, batch, block, spec, y);
  }

  void delta(const DeltaInput& in, Batch batch, int block, const DeltaSpec& spec, Tensor& y) override {
    delta_rule(pool_, kernels_, in, batch, block, spec, y);
  }

  void activate(Activation act, const Tensor& x, const Tensor* up, Tensor& y) override {
    const auto f = activation(act);
    elements(x.shape().elements(), [&](int64_t b, int64_t e) {
      f(x.as<float>().data() + b, up ? up->as<float>().data() + b : nullptr, y.as<float>().data() + b, e - b);
    });
  }

  // g sigmoid(alpha g) (u + 1) = silu(alpha g) (u + 1) / alpha.
  void clamped_swish(Tensor& gate, Tensor& up, float alpha, float limit) override {
    each(gate, [=](float g) { return alpha * (g > limit ? limit : g); });
    each(up, [=](float u) { return ((u < -limit ? -limit : u > limit ? limit : u) + 1) / alpha; });
    activate(Activation::silu, gate, &up, gate);
  }

  void add(const Tensor& x, float scale, Tensor& y) override {
    elements(x.shape().elements(), [&](int64_t b, int64_t e) {
      kernels_.add(x.as<float>().data() + b, scale, y.as<float>().data() + b, e - b);
    });
  }
  void add_rows(const Tensor& x, std::span<const int32_t> to, std::span<const float> weights, Tensor& y) override {
    const int64_t width = x.shape()[1];
    rows(x.shape()[0], width, [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i)
        kernels_.add(x.as<float>().data() + i * width, weights[size_t(i)], y.as<float>().data() + to[size_t(i)] * width,
                     width);
    });
  }
  void scale(Tensor& x, float by) override {
    each(x, [by](float v) { return v * by; });
  }
  void zero(Tensor& x) override {
    each(x, [](float) { return 0.f; });
  }
  void clip(Tensor& x, float bound) override {
    each(x, [bound](float v) { return v < -bound ? -bound : v > bound ? bound : v; });  // NaN stays
  }
  void soft_cap(Tensor& x, float cap) override {
    each(x, [cap](float v) { return cap * std::tanh(v / cap); });
  }

 private:
  // Below about 16k values a fork and a join cost more than they save.
  template <class F>
  void rows(int64_t n, int64_t width, const F& f) {
    if (n * width < 16384)
      f(0, n);
    else
      pool_.run(n, 1, f);
  }
  template <class F>
  void elements(int64_t n, const F& f) {
    if (n < 16384)
      f(0, n);
    else
      pool_.run(n, 64, f);
  }
  template <class F>
  void each(Tensor& x, const F& f) {
    elements(x.shape().elements(), [&](int64_t b, int64_t e) {
      for (float& v : x.as<float>().subspan(size_t(b), size_t(e - b))) v = f(v);
    });
  }
  static Tensor constant(int64_t n, float value) {
    Tensor t = Tensor::empty({n}, DType::f32);
    std::ranges::fill(t.as<float>(), value);
    return t;
  }
  void (*activation(Activation act) const)(const float*, const float*, float*, int64_t) {
    switch (act) {
      case Activation::silu:
        return kernels_.silu_mul;
      case Activation::gelu_tanh:
        return kernels_.gelu_tanh_mul;
      case Activation::gelu:
        return kernels_.gelu_mul;
      case Activation::relu:
        return kernels_.relu_mul;
      case Activation::sigmoid:
        return kernels_.sigmoid_mul;
      default:
        return kernels_.relu2_mul;
    }
  }

  const kernels::KernelSet& kernels_;
  ThreadPool& pool_;
  Activations activations_;
  Tiles tiles_;
  RopeTables ropes_{pool_};
};

}  // namespace

int tokens_of(Batch batch) {
  int n = 0;
  for (const Sequence& s : batch) n += s.tokens;
  return n;
}

Activations activations_of(std::string_view name) {
  if (name.empty() || name == "int16") return Activations::int16;
  if (name == "bf16") return Activations::bf16;
  if (name == "int8") return Activations::int8;
  fail("activations", "--activations: \"{}\" is not known; give int16, bf16 or int8", name);
}

DType kv_type(std::string_view name, DType otherwise) {
  if (name.empty()) return otherwise;
  for (const auto& [text, type] : {std::pair("f32", DType::f32),
                                   {"f16", DType::f16},
                                   {"bf16", DType::bf16},
                                   {"int8", DType::i8},
                                   {"fp8", DType::f8_e4m3}})
    if (name == text) return type;
  fail("kv cache", "--kv: \"{}\" is no type of a KV cache; choose f32, f16, bf16, int8 or fp8", name);
}

std::unique_ptr<Backend> cpu_backend(ThreadPool& pool, const kernels::KernelSet& kernels, Activations activations,
                                     Tiles tiles) {
  return std::make_unique<CpuBackend>(pool, kernels, activations, tiles);
}

}  // namespace awq
