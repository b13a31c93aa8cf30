#include <algorithm>
#include <cmath>

#include "base/numeric.h"
#include "base/parallel.h"
#include "kernels/kernels.h"
#include "model/backend.h"
#include "model/cpu_attention.h"
#include "model/cpu_linear.h"
#include "model/cpu_pack.h"

namespace awq {
namespace {

void copy_row(const Tensor& table, int64_t row, float scale, float* out) {
  const int64_t dim = table.shape()[1];
  if (table.dtype() == DType::f32) {
    const float* in = table.as<float>().data() + row * dim;
    for (int64_t i = 0; i < dim; ++i) out[i] = in[i] * scale;
  } else {
    const uint16_t* in = table.bits16().data() + row * dim;
    const bool half = table.dtype() == DType::f16;
    for (int64_t i = 0; i < dim; ++i) out[i] = (half ? f16_to_f32(in[i]) : bf16_to_f32(in[i])) * scale;
  }
}

/// Cosines and sines [positions][frequencies] of a batch's angles.
struct RopeTable {
  std::vector<float> frequencies;
  std::vector<int> positions;
  std::vector<float> cosines, sines;
};

class CpuBackend final : public Backend {
 public:
  CpuBackend(ThreadPool& pool, const kernels::KernelSet& kernels, Activations activations)
      : kernels_(kernels), pool_(pool), activations_(activations) {}
  std::string_view name() const override { return "cpu"; }
  std::string_view kernels() const override { return kernels_.name; }
  int threads() const override { return pool_.size(); }
  Tensor empty(Shape shape) override { return Tensor::empty(shape, DType::f32); }
  std::unique_ptr<Linear> linear(const Pieces& w, const Tensor* bias) override {
    return cpu_linear(w, bias, {pool_, kernels_, activations_});
  }
  int64_t linear_bytes(const Pieces& w) const override { return packed_bytes(w); }
  void apply(std::span<const Linear* const> f, const Tensor& x, std::span<Tensor> y) override { cpu_linears(f, x, y); }
  std::unique_ptr<KvCache> kv_cache(std::span<const BlockSpec> blocks, DType dtype) override {
    return std::make_unique<CpuKvCache>(blocks, dtype);
  }

  void embed(const Tensor& table, std::span<const int32_t> tokens, float scale, Tensor& x) override {
    const int64_t dim = table.shape()[1];
    for (size_t t = 0; t < tokens.size(); ++t) {
      if (tokens[t] < 0 || tokens[t] >= table.shape()[0])
        fail("forward", "token {} is outside the vocabulary of {}", tokens[t], table.shape()[0]);
      copy_row(table, tokens[t], scale, x.as<float>().data() + int64_t(t) * dim);
    }
  }

  void rms_norm(const Tensor& x, const Tensor& gain, const NormSpec& norm, Tensor& y) override {
    const int64_t width = gain.shape()[0];
    rows(x.shape().elements() / width, width, [&](int64_t b, int64_t e) {
      kernels_.rms_norm(x.as<float>().data() + b * width, gain.as<float>().data(), norm.gain_offset, norm.eps,
                        int32_t(e - b), int32_t(width), y.as<float>().data() + b * width);
    });
  }

  void rope(Tensor& x, Batch batch, std::span<const float> frequencies, int head_dim) override {
    const int64_t width = x.shape()[1], half = int64_t(frequencies.size());
    const RopeTable& table = rope_table(batch, frequencies);
    rows(x.shape()[0], width, [&](int64_t b, int64_t e) {
      for (int64_t t = b; t < e; ++t)
        kernels_.rope(x.as<float>().data() + t * width, table.cosines.data() + t * half, table.sines.data() + t * half,
                      int32_t(width / head_dim), head_dim, int32_t(2 * half));
    });
  }

  void attention(const Tensor& q, const Tensor& k, const Tensor& v, Batch batch, int block, const AttentionSpec& spec,
                 Tensor& y) override {
    cpu_attention(pool_, kernels_, q, k, v, batch, block, spec, y);
  }

  void gate(const Tensor& g, const Tensor& u, Activation act, Tensor& y) override {
    const auto f = act == Activation::silu ? kernels_.silu_mul : kernels_.gelu_tanh_mul;
    elements(g.shape().elements(), [&](int64_t b, int64_t e) {
      f(g.as<float>().data() + b, u.as<float>().data() + b, y.as<float>().data() + b, e - b);
    });
  }

  void add(const Tensor& x, Tensor& y) override {
    elements(x.shape().elements(),
             [&](int64_t b, int64_t e) { kernels_.add(x.as<float>().data() + b, y.as<float>().data() + b, e - b); });
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
  static std::vector<int> positions(Batch batch) {
    std::vector<int> at;
    for (const Sequence& s : batch)
      for (int t = 0; t < s.tokens; ++t) at.push_back(s.first + t);
    return at;
  }

  // All blocks of a forward pass turn queries and keys by the same angles (by two sets of them in Gemma 3).
  const RopeTable& rope_table(Batch batch, std::span<const float> frequencies) {
    std::vector<int> at = positions(batch);
    auto table = std::find_if(tables_.begin(), tables_.end(),
                              [&](const RopeTable& t) { return std::ranges::equal(t.frequencies, frequencies); });
    if (table != tables_.end() && table->positions == at) return *table;
    if (table == tables_.end()) {
      if (tables_.size() == kRopeTables) tables_.erase(tables_.begin());
      table = tables_.insert(tables_.end(), RopeTable{{frequencies.begin(), frequencies.end()}, {}, {}, {}});
    }
    table->positions = std::move(at);
    fill(*table);
    return *table;
  }
  void fill(RopeTable& t) {
    const size_t half = t.frequencies.size(), n = t.positions.size() * half;
    t.cosines.resize(n);
    t.sines.resize(n);
    rows(int64_t(t.positions.size()), int64_t(half) * 16, [&](int64_t b, int64_t e) {  // a cosine costs about 16 values
      for (size_t i = size_t(b) * half; i < size_t(e) * half; ++i) {
        const float angle = float(t.positions[i / half]) * t.frequencies[i % half];
        t.cosines[i] = std::cos(angle);
        t.sines[i] = std::sin(angle);
      }
    });
  }

  static constexpr size_t kRopeTables = 4;
  const kernels::KernelSet& kernels_;
  ThreadPool& pool_;
  Activations activations_;
  std::vector<RopeTable> tables_;
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
  for (const auto& [text, type] :
       {std::pair("f32", DType::f32), {"f16", DType::f16}, {"bf16", DType::bf16}, {"int8", DType::i8}})
    if (name == text) return type;
  fail("kv cache", "--kv: \"{}\" is no type of a KV cache; choose f32, f16, bf16 or int8", name);
}

std::unique_ptr<Backend> cpu_backend(ThreadPool& pool, const kernels::KernelSet& kernels, Activations activations) {
  return std::make_unique<CpuBackend>(pool, kernels, activations);
}

}  // namespace awq
