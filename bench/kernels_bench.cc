// Matrix products on one thread, as shares of what this machine can do, measured in the same run.
//
//   kernels_bench [--benchmark_filter=matmul_i16.*tokens:1/] [AWQ_ISA=portable]
//
// Time is the thread's own CPU time and the best of many calls, so that other programs disturb it less; caches and
// memory bandwidth are still shared with them. Weights come from memory, except on machines with a very large last
// cache: copies of 96 MB are used in turn, and reading is measured on twice that. Every product is checked against
// double precision before it is timed.
#include <benchmark/benchmark.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "awq/error.h"
#include "base/cpu.h"
#include "base/numeric.h"
#include "kernels/ceilings.h"
#include "kernels/registry.h"
#include "tensor/tensor.h"

namespace awq::kernels {
namespace {

double thread_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

constexpr size_t kWeightBytes = size_t(96) << 20;

/// On one thread; 0 where the set has no instruction for it.
struct Ceilings {
  double read;       // GB/s
  double fma, bf16;  // GFLOP/s
  double i16, i8;    // 10^9 operations
};

Ceilings ceilings(const KernelSet& set) {
  ThreadPool one(1);
  ReadBandwidth read(one, 2 * kWeightBytes);  // about as far away as the weights, whatever the last cache holds
  for (int i = 0; i < 5; ++i) read.pass();
  const auto peak = [&](DType type) { return peak_rate(one, set, type).value_or(0); };
  return {read.best(), peak(DType::f32), peak(DType::bf16), peak(DType::i16), peak(DType::i8)};
}

// ---- the products ----

struct Shape {
  int rows, cols;
};
constexpr int kGroup = 128;

std::vector<float> normals(size_t n, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> dist;
  std::vector<float> v(n);
  for (float& x : v) x = dist(rng);
  return v;
}

/// A product that is run on copy i of its weights, and the double-precision value of one output.
class Case {
 public:
  Case(Shape s, int m)
      : shape(s),
        tokens(m),
        x(normals(size_t(m) * size_t(s.cols), 1)),
        outputs_(Tensor::empty({m, s.rows}, DType::f32)),
        y(outputs_.as<float>()) {}
  virtual ~Case() = default;
  virtual void run(size_t copy) = 0;
  virtual double exact(int t, int r) const = 0;
  virtual double tolerance() const = 0;  // of the sum's rms, sqrt(cols)
  size_t weight_bytes() const { return one_; }
  size_t copies() const { return weights_.size() / one_; }
  double operations() const { return 2.0 * tokens * shape.rows * shape.cols; }

  bool right() const {
    std::mt19937 rng(3);
    for (int i = 0; i < 50; ++i) {
      const int t = int(rng() % unsigned(tokens)), r = int(rng() % unsigned(shape.rows));
      if (!(std::abs(double(y[size_t(t) * size_t(shape.rows) + size_t(r)]) - exact(t, r)) <=
            tolerance() * std::sqrt(shape.cols)))
        return false;
    }
    return true;
  }

 protected:
  void copy_weights(const std::vector<uint8_t>& one) {
    one_ = one.size();
    for (size_t i = 0; i == 0 || (i + 1) * one_ <= kWeightBytes; ++i)
      weights_.insert(weights_.end(), one.begin(), one.end());
  }
  const uint8_t* weights(size_t copy) const { return weights_.data() + copy % copies() * one_; }
  const Shape shape;
  const int tokens;
  std::vector<float> x;

 private:
  Tensor outputs_;  // in huge pages where it is large, as in the engine
  size_t one_ = 0;
  std::vector<uint8_t> weights_;

 protected:
  std::span<float> y;
};

class FloatCase : public Case {
 public:
  FloatCase(const KernelSet& set, Shape s, int m, DType type)
      : Case(s, m),
        gemm_(type == DType::f32    ? set.gemm_f32
              : type == DType::bf16 ? set.gemm_bf16
                                    : set.gemm_f16),
        w_(normals(size_t(s.rows) * size_t(s.cols), 2)) {
    std::vector<uint8_t> one;
    for (float& v : w_)
      v = type == DType::f32 ? v : type == DType::bf16 ? bf16_to_f32(f32_to_bf16(v)) : f16_to_f32(f32_to_f16(v));
    for (int p = 0; p < s.rows; p += kPanel)
      for (int c = 0; c < s.cols; ++c)
        for (int r = p; r < p + kPanel; ++r) {
          const float v = w_[size_t(r) * size_t(s.cols) + size_t(c)];
          const uint32_t bits = type == DType::f32    ? std::bit_cast<uint32_t>(v)
                                : type == DType::bf16 ? f32_to_bf16(v)
                                                      : f32_to_f16(v);
          for (size_t i = 0; i < size_of(type); ++i) one.push_back(uint8_t(bits >> 8 * i));
        }
    copy_weights(one);
  }
  void run(size_t copy) override {
    gemm_({.a = x.data(),
           .a_row = shape.cols,
           .b = weights(copy),
           .b_panel = ptrdiff_t(shape.cols) * kPanel,
           .b_k = kPanel,
           .c = y.data(),
           .c_row = shape.rows,
           .m = tokens,
           .n = shape.rows,
           .k = shape.cols,
           .accumulate = false});
  }
  double exact(int t, int r) const override {
    double sum = 0;
    for (int c = 0; c < shape.cols; ++c)
      sum += double(x[size_t(t) * size_t(shape.cols) + size_t(c)]) *
             double(w_[size_t(r) * size_t(shape.cols) + size_t(c)]);
    return sum;
  }
  // The rms error is about cols 2^-24 / 2.4 (tests/kernels/gemm_test.cc); ten times that.
  double tolerance() const override { return std::sqrt(shape.cols) * 0x1p-22; }

 protected:
  void (*gemm_)(const Gemm&);
  std::vector<float> w_;
};

/// Room for activations of bfloat16, one or two parts of each.
class TileActivations {
 public:
  TileActivations(const KernelSet& set, const std::vector<float>& x, Shape s, int m, bool pairs)
      : values_(Tensor::empty({m + 32, int64_t(s.cols) * 2}, DType::bf16)),
        view_{reinterpret_cast<uint16_t*>(values_.data()), m, s.cols, pairs} {
    set.split_bf16(x.data(), view_, 0, m, 0, view_.cols);
  }
  const ActBf16& view() const { return view_; }

 private:
  Tensor values_;  // on a cache line: a row of a tile is one
  ActBf16 view_;
};

/// 4-bit weights with integer activations of type Code.
template <class Code>
class IntCase : public Case {
 public:
  IntCase(const KernelSet& set, Shape s, int m)
      : Case(s, m),
        set_(set),
        codes_(x.size() + 32 * size_t(s.cols)),
        scales_(codes_.size() / kGroup),
        sums_(scales_.size()) {
    std::mt19937 rng(4);
    std::vector<uint8_t> one(size_t(s.rows / kPanel * s.cols / kGroup) * kBlock);
    for (uint8_t& b : one) b = uint8_t(rng());
    for (size_t at = kCodes; at < one.size(); at += kBlock)
      for (size_t r = 0; r < kPanel; ++r) {
        const uint16_t scale = f32_to_f16(0.2f + 0.01f * float(r));
        std::memcpy(one.data() + at + 2 * r, &scale, 2);
        one[at + 2 * kPanel + r] %= 16;
      }
    copy_weights(one);
    if constexpr (sizeof(Code) == 1)
      set.quantize_i8(x.data(), act(), 0, m);
    else
      set.quantize_i16(x.data(), act(), 0, m);
  }
  void run(size_t copy) override {
    const PackedInt w = packed(copy);
    if constexpr (sizeof(Code) == 1)
      set_.matmul_i8(w, act(), y.data(), shape.rows, 0, shape.rows / kPanel);
    else
      set_.matmul_i16(w, act(), y.data(), shape.rows, 0, shape.rows / kPanel);
  }
  double exact(int t, int r) const override {
    double sum = 0;
    for (int c = 0; c < shape.cols; ++c) sum += double(x[size_t(t) * size_t(shape.cols) + size_t(c)]) * weight(r, c);
    return sum;
  }
  // Half a step of 16-bit activations, 3 sigma / 65534, on weights of rms 2 would be 1e-4 if all were the largest
  // error; of 8-bit ones, 3 sigma / 254, 2.4e-2.
  double tolerance() const override { return sizeof(Code) == 1 ? 0.25 : 2e-3; }

 protected:
  PackedInt packed(size_t copy) const { return {weights(copy), shape.rows, shape.cols, kGroup, 4, true}; }

 private:
  ActInt<Code> act() { return {codes_.data(), scales_.data(), sums_.data(), tokens, shape.cols, kGroup}; }
  static constexpr size_t kCodes = 8 * kGroup, kBlock = kCodes + 3 * kPanel;
  double weight(int r, int c) const {
    static constexpr int kPlace[] = {0, 4, 2, 6, 1, 5, 3, 7};
    const uint8_t* at = weights(0) + (size_t(r / kPanel) * size_t(shape.cols / kGroup) + size_t(c / kGroup)) * kBlock;
    uint32_t word = 0;
    uint16_t scale = 0;
    std::memcpy(&word, at + 4 * size_t(c % kGroup / 8 * kPanel + r % kPanel), 4);
    std::memcpy(&scale, at + kCodes + 2 * size_t(r % kPanel), 2);
    return (int(word >> 4 * kPlace[c % 8] & 15) - at[kCodes + 2 * kPanel + size_t(r % kPanel)]) *
           double(f16_to_f32(scale));
  }
  const KernelSet& set_;
  std::vector<Code> codes_;
  std::vector<float> scales_;
  std::vector<int32_t> sums_;
};

/// 16-bit weights times pairs of bf16.
class TilesFloat final : public FloatCase {
 public:
  TilesFloat(const KernelSet& set, Shape s, int m, DType type)
      : FloatCase(set, s, m, type),
        product_(type == DType::f16 ? set.tiles_f16 : set.tiles_bf16),
        act_(set, x, s, m, true) {}
  void run(size_t copy) override {
    product_(reinterpret_cast<const uint16_t*>(weights(copy)), shape.rows, act_.view(), y.data(), shape.rows, 0,
             shape.rows / kPanel, 0, shape.cols);
  }
  // float16's low parts do not meet those of activations: 2^-18 of products of rms 1, evenly spread; ten times that.
  double tolerance() const override { return FloatCase::tolerance() + 0x1p-15; }

 private:
  decltype(KernelSet::tiles_bf16) product_;
  TileActivations act_;
};

/// 4-bit weights and activations, both rounded to bf16.
class TilesInt final : public IntCase<int16_t> {
 public:
  TilesInt(const KernelSet& set, Shape s, int m) : IntCase(set, s, m), set_(set), act_(set, x, s, m, false) {}
  void run(size_t copy) override {
    set_.tiles_int(packed(copy), act_.view(), y.data(), shape.rows, 0, shape.rows / kPanel);
  }
  // Both are off by 2^-9 at most, and all weights of a row may be, as they are multiples of one scale: 2^-8.5 of
  // products of rms 2.2; five times that.
  double tolerance() const override { return 3e-2; }

 private:
  const KernelSet& set_;
  TileActivations act_;
};

std::unique_ptr<Case> make_case(const KernelSet& set, const std::string& kind, Shape s, int tokens) {
  if (kind == "matmul_i16") return std::make_unique<IntCase<int16_t>>(set, s, tokens);
  if (kind == "matmul_i8") return std::make_unique<IntCase<int8_t>>(set, s, tokens);
  if (kind == "tiles_bf16") return std::make_unique<TilesFloat>(set, s, tokens, DType::bf16);
  if (kind == "tiles_f16") return std::make_unique<TilesFloat>(set, s, tokens, DType::f16);
  if (kind == "tiles_int") return std::make_unique<TilesInt>(set, s, tokens);
  return std::make_unique<FloatCase>(set, s, tokens,
                                     kind == "gemm_bf16"  ? DType::bf16
                                     : kind == "gemm_f16" ? DType::f16
                                                          : DType::f32);
}

void measure(benchmark::State& state, const KernelSet& set, const Ceilings& top, const std::string& kind, Shape s,
             int tokens) {
  const auto c = make_case(set, kind, s, tokens);
  c->run(0);
  if (!c->right()) return state.SkipWithError("the product is wrong");
  double best = 1e30;
  size_t copy = 0;
  for (auto _ : state) {
    const double start = thread_seconds();
    c->run(++copy);
    const double t = thread_seconds() - start;
    state.SetIterationTime(t);
    best = std::min(best, t);
  }
  const double peak = kind == "matmul_i16"        ? top.i16
                      : kind == "matmul_i8"       ? top.i8
                      : kind.starts_with("tiles") ? top.bf16
                                                  : top.fma,
               giga = 1e-9 * c->operations() / best;
  const double bytes = 1e-9 * double(c->weight_bytes()) / best;
  state.counters["best_us"] = best * 1e6;
  state.counters["Gop/s"] = giga;
  if (peak > 0) state.counters["%peak"] = 100 * giga / peak;
  state.counters["GB/s"] = bytes;
  state.counters["%read"] = 100 * bytes / top.read;
}

void add_cases(const KernelSet& set, const Ceilings& top) {
  std::vector<const char*> kinds{"gemm_f32", "gemm_bf16", "gemm_f16", "matmul_i16", "matmul_i8"};
  if (set.tiles_int) kinds.insert(kinds.end(), {"tiles_bf16", "tiles_f16", "tiles_int"});
  for (const char* kind : kinds)
    for (const Shape s : {Shape{512, 2048}, {2048, 2048}, {8192, 2048}, {2048, 8192}})
      for (const int tokens : {1, 2, 4, 8, 16, 32, 64, 128, 512}) {
        const std::string name = std::string(kind) + "/" + std::to_string(s.rows) + "x" + std::to_string(s.cols) +
                                 "/tokens:" + std::to_string(tokens);
        benchmark::RegisterBenchmark(
            name.c_str(),
            [&set, &top, kind, s, tokens](benchmark::State& state) { measure(state, set, top, kind, s, tokens); })
            ->UseManualTime()
            ->MinTime(0.1)
            ->Unit(benchmark::kMicrosecond);
      }
}

}  // namespace
}  // namespace awq::kernels

int main(int argc, char** argv) try {
  using namespace awq::kernels;
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  const KernelSet& set = select();
  const Ceilings top = ceilings(set);
  std::printf("%s, %s, one thread: read %.1f GB/s, fma %.1f GFLOP/s, int16 %.1f, int8 %.1f Gop/s\n",
              awq::cpu_name().c_str(), set.name, top.read, top.fma, top.i16, top.i8);
  std::fflush(stdout);
  add_cases(set, top);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
} catch (const awq::Error& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
