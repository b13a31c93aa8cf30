// The backend on the executor against the CPU's, operation by operation.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include "base/numeric.h"
#include "base/parallel.h"
#include "cuda/executor_device.h"
#include "kernels/registry.h"
#include "model/cuda_backend.h"

namespace awq {
namespace {

class CudaBackendTest : public testing::Test {
 protected:
  void TearDown() override { cuda::executor::set_seed(0); }

  Tensor random(Shape shape, float size = 1) {
    Tensor t = Tensor::empty(shape, DType::f32);
    for (float& v : t.as<float>()) v = float(int(rng_() % 2001) - 1000) / 1000 * size;
    return t;
  }
  /// A copy on the device.
  Tensor there(const Tensor& t) {
    Tensor d = gpu_->empty({t.shape().elements() / t.shape()[-1], t.shape()[-1]});
    std::vector<int32_t> all;
    for (int64_t r = 0; r < d.shape()[0]; ++r) all.push_back(int32_t(r));
    gpu_->embed(t.reshaped(d.shape()), all, 1, d);
    return d.reshaped(t.shape());
  }
  /// f(backend, x) on both, with x changed in place.
  template <class F>
  void expect_near(const Tensor& x, double tolerance, const F& f) {
    Tensor a = x.clone(), b = there(x);
    f(*cpu_, a);
    f(*gpu_, b);
    expect_near(a, b, tolerance);
  }
  void expect_near(const Tensor& want, const Tensor& device, double tolerance) {
    const Tensor got = gpu_->host(device);
    ASSERT_EQ(got.shape(), want.shape());
    for (size_t i = 0; i < want.as<float>().size(); ++i)
      ASSERT_NEAR(got.as<float>()[i], want.as<float>()[i], tolerance) << i;
  }

  std::mt19937 rng_{5};
  ThreadPool pool_{2};
  std::unique_ptr<Backend> cpu_ = cpu_backend(pool_, kernels::select("portable")),
                           gpu_ = cuda_backend(pool_, cuda::executor_device());
};

// Both round each operation to float: a few of them, on values of a few units.
constexpr double kFew = 16 * 0x1p-24;

TEST_F(CudaBackendTest, Activations) {
  for (const Activation act :
       {Activation::silu, Activation::gelu_tanh, Activation::gelu, Activation::relu, Activation::relu2}) {
    expect_near(random({3, 100}, 3), 9 * kFew, [&](Backend& b, Tensor& x) { b.activate(act, x, nullptr, x); });
    const Tensor up = random({3, 100}, 3), up_there = there(up);
    expect_near(random({3, 100}, 3), 27 * kFew,
                [&](Backend& b, Tensor& x) { b.activate(act, x, &b == cpu_.get() ? &up : &up_there, x); });
  }
}

TEST_F(CudaBackendTest, ElementByElement) {
  const Tensor y = random({5, 70}), y_there = there(y);
  expect_near(random({5, 70}, 4), 0, [](Backend& b, Tensor& x) { b.scale(x, 1.7f); });
  expect_near(random({5, 70}, 4), 0, [](Backend& b, Tensor& x) { b.clip(x, 1.5f); });
  expect_near(random({5, 70}, 4), 0, [](Backend& b, Tensor& x) { b.zero(x); });
  expect_near(random({5, 70}, 4), 4 * kFew, [](Backend& b, Tensor& x) { b.soft_cap(x, 2); });
  expect_near(random({5, 70}), 2 * kFew,
              [&](Backend& b, Tensor& x) { b.add(&b == cpu_.get() ? y : y_there, 0.3f, x); });
  expect_near(random({5, 70}, 4), 100 * kFew, [&](Backend& b, Tensor& x) {
    Tensor up = &b == cpu_.get() ? y.clone() : there(y);
    b.clamped_swish(x, up, 1.702f, 3);
  });
}

TEST_F(CudaBackendTest, Norms) {
  for (const NormKind kind : {NormKind::rms, NormKind::layer})
    for (const int64_t width : {int64_t(7), int64_t(96), int64_t(700)})
      for (const bool gains : {true, false}) {
        const NormSpec spec{.kind = kind, .gain_offset = gains ? 1.f : 0.f, .gain = gains};
        const Tensor gain = gains ? random({width}) : Tensor(),
                     bias = gains && kind == NormKind::layer ? random({width}) : Tensor();
        expect_near(random({4, width}), double(width) * 0x1p-22,
                    [&](Backend& b, Tensor& x) { b.norm(x, gain, bias, spec, width, x); });
      }
  const Tensor each = random({2 * 16});  // each run of a row by its own
  expect_near(random({3, 32}), 16 * 0x1p-22, [&](Backend& b, Tensor& x) { b.norm(x, each, {}, NormSpec{}, 16, x); });
}

TEST_F(CudaBackendTest, SumsAndTheirNorms) {
  for (const NormKind kind : {NormKind::rms, NormKind::layer})
    for (const int64_t width : {int64_t(7), int64_t(700)}) {
      const NormSpec spec{.kind = kind};
      const Tensor y = random({4, width}), y_there = there(y), gain = random({width}), x = random({4, width});
      const auto sum = [&](Backend& b, Tensor& h, bool in_place) {
        Tensor own = &b == cpu_.get() ? x.clone() : there(x), added = &b == cpu_.get() ? y.clone() : there(y);
        b.add_norm(added, 0.7f, own, gain, {}, spec, in_place ? added : h);
        if (in_place) b.zero(h), b.add(added, 1, h);
        b.add(own, 0.25f, h);  // both results
      };
      for (const bool in_place : {false, true})
        expect_near(random({4, width}), double(width) * 0x1p-22, [&](Backend& b, Tensor& h) { sum(b, h, in_place); });
    }
}

// Activations are computed where they are rounded for the product; with columns in another order and factors too.
TEST_F(CudaBackendTest, ActivatedProductsAreThoseOfActivations) {
  for (const bool changed : {false, true})
    for (const DType type : {DType::f16, DType::f32}) {
      Pieces w = pieces_of(Weight(random({24, 96}).to(type)));
      if (changed) {
        w.order = Tensor::empty({96}, DType::i32);
        for (int i = 0; i < 96; ++i) w.order.as<int32_t>()[size_t(i)] = (i * 5 + 3) % 96;
        w.inputs = random({96});
      }
      const auto f = gpu_->linear(w, nullptr);
      for (const Activation act : {Activation::silu, Activation::relu2, Activation::gelu})
        for (const bool gated : {true, false}) {
          const Tensor gate = random({5, 96}, 3), up = there(random({5, 96}, 3));
          Tensor a = there(gate), b = there(gate), y = gpu_->empty({5, 24}), z = gpu_->empty({5, 24});
          gpu_->activated_product(act, a, gated ? &up : nullptr, *f, y, 5);
          gpu_->activate(act, b, gated ? &up : nullptr, b);
          f->multiply(b, z, 5);
          EXPECT_TRUE(same_bytes(gpu_->host(y), gpu_->host(z)));
        }
    }
}

TEST_F(CudaBackendTest, Positions) {
  const std::vector<float> frequencies = {1, 0.3f, 0.01f};
  const Sequence batch[] = {{nullptr, 5, 2}, {nullptr, 900, 3}};
  for (const bool interleaved : {false, true})
    for (const int first : {0, 2})
      expect_near(random({5, 2 * 8}), kFew, [&](Backend& b, Tensor& x) {
        for (int again = 0; again < 2; ++again) b.rope(x, batch, frequencies, 8, first, interleaved);
      });
}

TEST_F(CudaBackendTest, RowsAndHeads) {
  const Tensor own = random({3, 4 * 6}), shared = random({3, 5}), own_there = there(own), shared_there = there(shared);
  expect_near(Tensor::zeros({3, 4 * 11}, DType::f32), 0, [&](Backend& b, Tensor& y) {
    &b == cpu_.get() ? b.join_heads(own, shared, 4, y) : b.join_heads(own_there, shared_there, 4, y);
  });
  const std::vector<int32_t> rows = {4, 1};
  const std::vector<float> weights = {0.5f, 3};
  const Tensor x = random({2, 9}), x_there = there(x);
  expect_near(random({5, 9}), kFew,
              [&](Backend& b, Tensor& y) { b.add_rows(&b == cpu_.get() ? x : x_there, rows, weights, y); });
  const Tensor table = random({6, 9}), table_there = there(table);
  for (const float scale : {1.f, 2.5f})
    expect_near(Tensor::zeros({2, 9}, DType::f32), 0,
                [&](Backend& b, Tensor& y) { b.embed(&b == cpu_.get() ? table : table_there, rows, scale, y); });
  const Tensor half = table.to(DType::bf16);
  expect_near(Tensor::zeros({2, 9}, DType::f32), 0, [&](Backend& b, Tensor& y) { b.embed(half, rows, 2, y); });
  Tensor y = gpu_->empty({2, 9});
  EXPECT_THROW(gpu_->embed(table, std::vector<int32_t>{6}, 1, y), Error);
}

/// A random matrix as files have it: zero points or offsets, columns in order or not.
QMatrix random_matrix(std::mt19937& rng, int rows, int cols, const QuantSpec& spec) {
  QMatrix q = QMatrix::empty({rows, cols}, spec);
  for (uint8_t& c : q.codes.as<uint8_t>()) c = uint8_t(rng() % unsigned(spec.levels() + 1));
  for (float& s : q.scales.as<float>()) s = f16_to_f32(f32_to_f16(float(1 + rng() % 1000) * 1e-5f));
  if (!spec.offsets)
    for (uint8_t& z : q.zeros.as<uint8_t>()) z = uint8_t(rng() % unsigned(spec.levels() + 1));
  else
    for (float& o : q.offsets.as<float>()) o = f16_to_f32(f32_to_f16(-float(rng() % 1000) * 1e-4f));
  if (rng() % 3 == 0) {
    q.order = Tensor::empty({cols}, DType::i32);
    std::iota(q.order.as<int32_t>().begin(), q.order.as<int32_t>().end(), 0);
    std::ranges::shuffle(q.order.as<int32_t>(), rng);
  }
  if (rng() % 3 == 0) {
    q.inputs = Tensor::empty({cols}, DType::f32);
    for (float& v : q.inputs.as<float>()) v = float(1 + rng() % 8) / 4;
  }
  return q;
}

// From a file's matrix to the product, against double arithmetic on what the matrix means. Activations are rounded to
// 11 bits, and so are weights where they are decoded; sums of codes and of what zero points take away are in float.
TEST_F(CudaBackendTest, MatricesOfEveryKind) {
  double most = 0;
  for (int i = 0; i < 60; ++i) {
    const auto pick = [&](std::initializer_list<int> of) { return of.begin()[rng_() % of.size()]; };
    const int group = pick({32, 64, 128, 16, 24, 40, 96}), cols = group * pick({1, 2, 3, 5}),
              rows = pick({8, 24, 64, 72, 136});
    const int tokens = pick({1, 5, 9, 16, 20, 40, 70});
    const QuantSpec spec{.bits = pick({2, 3, 4, 5, 8}),
                         .group_size = group,
                         .scale_dtype = rng_() % 4 ? DType::f16 : DType::f32,
                         .offsets = rng_() % 3 == 0};
    SCOPED_TRACE(fmt::format("{}: {} x {}, {} bits, groups of {}, offsets {}, {} tokens", i, rows, cols, spec.bits,
                             group, spec.offsets, tokens));
    const QMatrix q = random_matrix(rng_, rows, cols, spec);
    const Tensor w = dequantize(q), x = random({tokens, cols}), bias = random({rows});
    const auto f = gpu_->linear(Weight(q), &bias);
    Tensor y = gpu_->empty({tokens, rows});
    (*f)(there(x), y);
    const Tensor got = gpu_->host(y);
    const double grid = (spec.offsets ? 0.1 : 0) + 2 * spec.levels() * 0.01, in = q.inputs ? 2 : 1;
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t r = 0; r < rows; ++r) {
        double sum = double(bias.as<float>()[size_t(r)]), all = 0, xs = 0;
        for (int64_t c = 0; c < cols; ++c) {
          const double a = double(x.as<float>()[size_t(t * cols + c)]), b = double(w.as<float>()[size_t(r * cols + c)]);
          sum += a * b, all += std::abs(a * b), xs += std::abs(a);
        }
        const double bound = 2 * 0x1p-11 * all + (cols + 16) * 0x1p-24 * grid * in * xs + 0x1p-22;
        const double error = std::abs(double(got.as<float>()[size_t(t * rows + r)]) - sum);
        ASSERT_LE(error, bound) << "token " << t << " row " << r;
        most = std::max(most, error / bound);
      }
  }
  EXPECT_GT(most, 0.01);
}

// Queries, keys and values as models have them, and caches of every type: scores and weights take queries in 11 bits
// (f16) or as pairs of 16, what is stored is the same on both sides.
struct AttentionCase {
  int heads, kv_heads, head_dim, value_dim = 0, window = 0;
  float cap = 0, alibi = 0;
  bool sinks = false;
};
class CudaAttention : public CudaBackendTest, public testing::WithParamInterface<AttentionCase> {
 protected:
  void run(DType type, std::vector<std::vector<int>> steps, unsigned seed) {
    const AttentionCase& c = GetParam();
    AttentionSpec spec;
    spec.heads = c.heads, spec.kv_heads = c.kv_heads, spec.head_dim = c.head_dim, spec.value_dim = c.value_dim;
    spec.query_scale = 1 / std::sqrt(float(c.head_dim));
    if (c.window) spec.window = c.window;
    spec.soft_cap = c.cap, spec.alibi = c.alibi;
    BlockSpec other, block;
    block.attention = spec;
    other.attention = spec;
    other.attention.head_dim = 8;
    const BlockSpec blocks[] = {other, block};  // the second of two
    const std::vector<float> sinks = {0.5f, -1, 2, 0, 1, 1, 0.1f, 3};
    const std::span<const float> of_heads =
        c.sinks ? std::span(sinks).first(size_t(c.heads)) : std::span(sinks).first(0);
    cuda::executor::set_seed(seed);
    std::vector<std::unique_ptr<KvCache>> a, b;
    std::vector<int> done(steps.front().size());
    for (size_t i = 0; i < done.size(); ++i)
      a.push_back(cpu_->kv_cache(blocks, type)), b.push_back(gpu_->kv_cache(blocks, type));
    for (const std::vector<int>& step : steps) {
      std::vector<Sequence> on_cpu, on_gpu;
      for (size_t i = 0; i < step.size(); ++i) {
        if (!step[i]) continue;
        on_cpu.push_back({a[i].get(), done[i], step[i]});
        on_gpu.push_back({b[i].get(), done[i], step[i]});
        done[i] += step[i];
      }
      const int64_t n = tokens_of(on_cpu);
      const Tensor q = random({n, spec.q_rows()}, 2), k = random({n, spec.kv_rows()}, 2),
                   v = random({n, spec.v_rows()});
      Tensor y = Tensor::zeros({n, spec.out_rows()}, DType::f32), z = gpu_->empty({n, spec.out_rows()});
      cpu_->attention(q, k, v, of_heads, on_cpu, 1, spec, y);
      gpu_->attention(there(q), there(k), there(v), of_heads, on_gpu, 1, spec, z);
      // A score is a sum of up to head_dim products of up to 4 / sqrt(head_dim), and its error changes weights by as
      // much; values are up to 1. The bound is an eighth of the worst case, where all errors have one sign.
      const double unit = type == DType::f16 ? 0x1p-11 : 0x1p-16;
      expect_near(y, z, unit * (1 + 4 * std::sqrt(c.head_dim) / 8) + 0x1p-18);
    }
  }
};

TEST_P(CudaAttention, EqualsTheCpus) {
  for (const DType type : {DType::f16, DType::bf16, DType::i8, DType::f8_e4m3}) {
    SCOPED_TRACE(name_of(type));
    run(type, {{40, 3}, {1, 1}, {0, 9}, {230, 1}, {1, 1}, {2, 260}, {1, 1}}, 2);
  }
}
INSTANTIATE_TEST_SUITE_P(Specs, CudaAttention,
                         testing::Values(AttentionCase{4, 2, 32}, AttentionCase{3, 1, 40, 24}, AttentionCase{2, 2, 72},
                                         AttentionCase{8, 1, 64, 0, 33}, AttentionCase{4, 2, 16, 0, 300, 5.f},
                                         AttentionCase{2, 1, 96, 136, 0, 0, 1},
                                         AttentionCase{4, 4, 8, 0, 0, 0, 0, true}),
                         [](const auto& c) {
                           return fmt::format("{}_heads_of_{}_case{}", c.param.heads, c.param.head_dim, c.index);
                         });

/// What attention of heads is made of, and caches of what came before.
struct HeadsCase {
  HeadsInput in;
  AttentionSpec spec;
  BlockSpec block;
  explicit HeadsCase(int heads, int kv_heads, int head_dim) {
    spec.heads = heads, spec.kv_heads = kv_heads, spec.head_dim = head_dim;
    spec.query_scale = 1 / std::sqrt(float(head_dim));
    block.attention = spec;
  }
};

/// All values of e4m3 that are not negative, in their order.
std::vector<double> values_of_e4m3() {
  std::vector<double> all;
  for (int code = 0; code < 127; ++code)
    all.push_back(code < 8 ? code * 0x1p-9 : std::ldexp(1 + code % 8 / 8., code / 8 - 7));
  return all;
}
/// The nearest of them, of two the one with an even code.
double nearest_of(const std::vector<double>& all, double x) {
  const auto above = std::ranges::lower_bound(all, x);
  if (above == all.begin() || *above == x) return *above;
  const double up = *above - x, down = x - above[-1];
  return up < down || (up == down && (above - all.begin()) % 2 == 0) ? *above : above[-1];
}

// A position that is alone has a weight of 1, and attention gives what is stored of its value: the nearest that there
// is, the largest of a head being brought into [2^7, 2^8). On the CPU and on the device, to the bit.
TEST_F(CudaBackendTest, Fp8KeepsTheNearest) {
  const std::vector<double> all = values_of_e4m3();
  HeadsCase c(2, 2, 64);
  for (int i = 0; i < 40; ++i) {
    Tensor v = random({1, 128});
    auto x = v.as<float>();
    for (size_t h = 0; h < 2; ++h)
      for (size_t j = 0; j < 64; ++j) {
        // Any size down to where nothing is left; every fourth lies in the middle of two codes.
        float& at = x[h * 64 + j];
        at = std::ldexp(at, int(i) * 3 - 60 - int(rng_() % 20));
        if (j % 4 == 0) at = std::ldexp(float(17 + 2 * (rng_() % 8)), -int(rng_() % 16));
      }
    const auto a = cpu_->kv_cache({&c.block, 1}, DType::f8_e4m3), b = gpu_->kv_cache({&c.block, 1}, DType::f8_e4m3);
    const Sequence one{a.get(), 0, 1}, other{b.get(), 0, 1};
    const Tensor q = random({1, 128});
    Tensor y = Tensor::zeros({1, 128}, DType::f32), z = gpu_->empty({1, 128});
    cpu_->attention(q, q, v, {}, {&one, 1}, 0, c.spec, y);
    gpu_->attention(there(q), there(q), there(v), {}, {&other, 1}, 0, c.spec, z);
    const Tensor got = gpu_->host(z);
    for (size_t j = 0; j < 128; ++j) {
      const auto head = x.subspan(j / 64 * 64, 64);
      const double most = std::abs(*std::ranges::max_element(head, {}, [](float f) { return std::abs(f); }));
      const double scale = std::ldexp(1., std::ilogb(most) - 7);
      const double want = std::copysign(nearest_of(all, std::abs(double(x[j])) / scale) * scale, double(x[j]));
      ASSERT_EQ(double(y.as<float>()[j]), want) << x[j] << " of " << most;
      ASSERT_EQ(double(got.as<float>()[j]), want) << x[j] << " of " << most;
    }
  }
}

// One kernel for norms, rotation and storing: without norms the bits of one after the other.
TEST_F(CudaBackendTest, HeadsAreThoseOfTheSingleCalls) {
  const std::vector<float> frequencies = {1, 0.3f, 0.01f};
  for (const DType type : {DType::f16, DType::bf16, DType::i8, DType::f8_e4m3})
    for (const int turned : {0, 1, 2}) {
      HeadsCase c(4, 2, 40);
      c.spec.rope.interleaved = turned == 2;
      const auto a = gpu_->kv_cache({&c.block, 1}, type), b = gpu_->kv_cache({&c.block, 1}, type);
      int first = 0;
      for (const int tokens : {11, 1, 3}) {
        const Sequence one{a.get(), first, tokens}, other{b.get(), first, tokens};
        first += tokens;
        const Tensor q = random({tokens, 160}, 2), k = random({tokens, 80}, 2), v = there(random({tokens, 80}));
        c.in = {there(q), there(k), v, {}, {}, turned ? std::span(frequencies) : std::span<const float>(), {}};
        Tensor y = gpu_->empty({tokens, 160}), z = gpu_->empty({tokens, 160}), own_q = there(q), own_k = there(k);
        gpu_->heads(c.in, {&one, 1}, 0, c.spec, y);
        for (Tensor* t : {&own_q, &own_k})
          if (turned) gpu_->rope(*t, {&other, 1}, frequencies, 40, 0, c.spec.rope.interleaved);
        gpu_->attention(own_q, own_k, v, {}, {&other, 1}, 0, c.spec, z);
        ASSERT_TRUE(same_bytes(gpu_->host(y), gpu_->host(z))) << tokens << ' ' << turned;
      }
    }
}

// With norms a sum's order differs: the bound is attention's (CudaAttention), with scores up to twice as large.
TEST_F(CudaBackendTest, HeadsWithNormsEqualTheCpus) {
  const std::vector<float> frequencies = {1, 0.3f, 0.01f, 0.002f};
  for (const NormKind kind : {NormKind::rms, NormKind::layer})
    for (const bool each : {false, true}) {  // heads of their own gains
      HeadsCase c(4, 2, 48);
      const auto norm = [&](int heads) {
        return HeadsInput::Norm{random({each ? heads * 48 : 48}),
                                kind == NormKind::layer ? random({each ? heads * 48 : 48}) : Tensor(),
                                NormSpec{.kind = kind, .gain_offset = each ? 1.f : 0.f}};
      };
      const auto q_norm = norm(4), k_norm = norm(2);
      const auto a = cpu_->kv_cache({&c.block, 1}, DType::f16), b = gpu_->kv_cache({&c.block, 1}, DType::f16);
      int first = 0;
      for (const int tokens : {20, 1, 1}) {
        const Sequence one{a.get(), first, tokens}, other{b.get(), first, tokens};
        first += tokens;
        const Tensor q = random({tokens, 192}, 2), k = random({tokens, 96}, 2), v = random({tokens, 96});
        Tensor y = Tensor::zeros({tokens, 192}, DType::f32), z = gpu_->empty({tokens, 192});
        cpu_->heads({q.clone(), k.clone(), v, q_norm, k_norm, frequencies, {}}, {&one, 1}, 0, c.spec, y);
        gpu_->heads({there(q), there(k), there(v), q_norm, k_norm, frequencies, {}}, {&other, 1}, 0, c.spec, z);
        expect_near(y, z, 2 * 0x1p-11 * (1 + 4 * std::sqrt(48) / 8) + 0x1p-18);
      }
    }
}

TEST_F(CudaBackendTest, CachesAreCopiedSharedAndCounted) {
  AttentionSpec spec;
  spec.heads = spec.kv_heads = 2, spec.head_dim = 16, spec.query_scale = 0.25f;
  BlockSpec block;
  block.attention = spec;
  const auto run = [&](KvCache& kv, int first, int tokens, unsigned seed) {
    rng_.seed(seed);
    const Sequence s{&kv, first, tokens};
    const Tensor q = there(random({tokens, 32})), k = there(random({tokens, 32})), v = there(random({tokens, 32}));
    Tensor y = gpu_->empty({tokens, 32});
    gpu_->attention(q, k, v, {}, {&s, 1}, 0, spec, y);
    return gpu_->host(y);
  };
  const auto kv = gpu_->kv_cache({&block, 1}, DType::bf16), taken = gpu_->kv_cache({&block, 1}, DType::bf16);
  EXPECT_EQ(kv->bytes(), 0);
  run(*kv, 0, 256, 1);
  EXPECT_EQ(kv->bytes(), kv->bytes_for(256));
  EXPECT_EQ(kv->bytes_for(257), 2 * kv->bytes_for(1));
  const auto copy = kv->clone();
  taken->put_page(0, kv->page(0));
  const Tensor want = run(*kv, 256, 3, 2);
  run(*kv, 5, 1, 9);  // writes to a page of its own, and to the one that `taken` shares
  EXPECT_TRUE(same_bytes(run(*copy, 256, 3, 2), want));
  EXPECT_FALSE(same_bytes(run(*taken, 256, 3, 2), want));
  EXPECT_THROW(gpu_->kv_cache({&block, 1}, DType::f32), Error);
}

TEST_F(CudaBackendTest, OutOfMemoryNamesWhatThereWas) {
  const auto small = cuda_backend(pool_, cuda::executor_device(1 << 20));
  if (small->kernels() != "executor") GTEST_SKIP() << "a GPU has more memory than a test should fill";
  const Tensor some = small->empty({64, 1024});
  try {
    small->empty({1024, 1024});
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("has no room for another 4.2 MB: 0.3 MB are in use here"), std::string::npos)
        << e.what();
  }
}

TEST_F(CudaBackendTest, RatesAreMeasured) {
  const DeviceRates r = gpu_->rates().value();
  EXPECT_GT(r.copy, 0);
  EXPECT_GT(r.product, 0);
  EXPECT_EQ(r.type, DType::f16);
  EXPECT_GT(r.copied, 0);
  EXPECT_FALSE(cpu_->rates());
}

TEST_F(CudaBackendTest, RefusesActivationsThatItHasNot) {
  EXPECT_THROW(cuda_backend(pool_, cuda::executor_device(), "int8"), Error);
}

}  // namespace
}  // namespace awq
