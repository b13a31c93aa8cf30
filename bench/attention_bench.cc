// Attention of one block with its KV cache: one token, or the last 512 of a prompt, at several lengths, as shares of
// the read bandwidth and of the fma peak that the same threads reach in the same run.
//
//   attention_bench [--benchmark_filter=llama.*decode.*kv:bf16.*threads:2] [AWQ_ISA=avx2]
//
// Caches are those of so many blocks that their bytes exceed 192 MB, used in turn as a model does. One token's time is
// that of writing its key and value, too. A token and head of every case are checked against double precision first.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <string>

#include "awq/error.h"
#include "base/check.h"
#include "base/cpu.h"
#include "kernels/registry.h"
#include "model/cpu_attention.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace awq {
namespace {

using Clock = std::chrono::steady_clock;
template <class F>
double seconds(const F& f) {
  const auto start = Clock::now();
  f();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// ---- what the machine can do ----

#if defined(__x86_64__)
#define AWQ_TWELVE(M) M("0") M("1") M("2") M("3") M("4") M("5") M("6") M("7") M("8") M("9") M("10") M("11")
#define AWQ_FMA_LOOP(name, r)                                                                                        \
  void name(int64_t n) {                                                                                             \
    asm volatile("1:\n" AWQ_TWELVE(r) "dec %0\n jnz 1b\n vzeroupper\n"                                               \
                 : "+r"(n)                                                                                           \
                 :                                                                                                   \
                 : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", \
                   "xmm14", "xmm15", "cc");                                                                          \
  }
#define AWQ_FMA_YMM(i) "vfmadd231ps %%ymm15, %%ymm14, %%ymm" i "\n"
#define AWQ_FMA_ZMM(i) "vfmadd231ps %%zmm15, %%zmm14, %%zmm" i "\n"
AWQ_FMA_LOOP(fma_ymm, AWQ_FMA_YMM)
AWQ_FMA_LOOP(fma_zmm, AWQ_FMA_ZMM)
#endif

/// GFLOP/s of all threads; 0 where it is not known.
double fma_rate(ThreadPool& pool, const kernels::KernelSet& set) {
#if defined(__x86_64__)
  const int lanes = set.name == std::string("avx2") ? 8 : set.name == std::string("portable") ? 0 : 16;
  constexpr int64_t kRounds = 100000;
  double best = 1e30;
  for (int i = 0; i < 30 && lanes; ++i)
    best = std::min(best, seconds([&] {
                      pool.run(pool.size(), 1, [&](int64_t, int64_t) { (lanes == 8 ? fma_ymm : fma_zmm)(kRounds); });
                    }));
  return 2e-9 * 12 * lanes * kRounds * pool.size() / best * (lanes ? 1 : 0);
#else
  return 0 * pool.size() * double(set.needs);
#endif
}

// Eight streams: on the Xeon one alone reads half as much, because prefetchers work by the page of memory.
constexpr int64_t kStreams = 8;
#if defined(__x86_64__)
__attribute__((target("avx2"))) void read_ymm(const std::byte* p, int64_t n) {
  __m256i sum[kStreams] = {};
  for (int64_t i = 0; i < n / kStreams; i += 64)
    for (int64_t s = 0; s < kStreams; ++s) {
      const auto* at = reinterpret_cast<const __m256i*>(p + s * (n / kStreams) + i);
      sum[s] = _mm256_xor_si256(sum[s], _mm256_xor_si256(_mm256_load_si256(at), _mm256_load_si256(at + 1)));
    }
  for (int64_t s = 1; s < kStreams; ++s) sum[0] = _mm256_xor_si256(sum[0], sum[s]);
  benchmark::DoNotOptimize(_mm256_testz_si256(sum[0], sum[0]));
}
#endif
void read_plain(const std::byte* p, int64_t n) {
  uint64_t sum[kStreams] = {};
  for (int64_t i = 0; i < n / kStreams; i += 8)
    for (int64_t s = 0; s < kStreams; ++s) sum[s] ^= reinterpret_cast<const uint64_t*>(p + s * (n / kStreams) + i)[0];
  benchmark::DoNotOptimize(sum);
}

/// GB/s of all threads over 512 MB in huge pages where the system gives them, the best of 20 passes.
double read_rate(ThreadPool& pool) {
  constexpr int64_t kBytes = int64_t(512) << 20, kHuge = int64_t(2) << 20;
  auto* read = read_plain;
#if defined(__x86_64__)
  if (cpu_features() & kAvx2) read = read_ymm;
#endif
  const std::unique_ptr<std::byte, void (*)(void*)> memory(
      static_cast<std::byte*>(std::aligned_alloc(size_t(kHuge), size_t(kBytes))), std::free);
  if (!memory) fail("bench", "512 MB to measure the read bandwidth with cannot be allocated");
  std::fill_n(memory.get(), kBytes, std::byte(1));
  double best = 1e30;
  for (int i = 0; i < 20; ++i)
    best = std::min(
        best, seconds([&] { pool.run(kBytes, kHuge, [&](int64_t b, int64_t e) { read(memory.get() + b, e - b); }); }));
  return 1e-9 * double(kBytes) / best;
}

struct Machine {
  explicit Machine(int threads)
      : pool(threads), set(kernels::select()), read(read_rate(pool)), fma(fma_rate(pool, set)) {}
  ThreadPool pool;
  const kernels::KernelSet& set;
  double read, fma;
};

// ---- the cases ----

struct Heads {
  const char* name;
  int heads, kv_heads, head_dim;
};
constexpr Heads kHeads[] = {{"smollm2-135m", 9, 3, 64}, {"llama-3.2-1b", 32, 8, 64}, {"qwen3-4b", 32, 8, 128}};
constexpr int kPrefill = 512;

/// Position p has key and value number p % 61 of the same list.
class Case {
 public:
  Case(Machine& m, const Heads& h, int positions, int tokens, int window, DType type)
      : m_(m), positions_(positions), tokens_(tokens) {
    AttentionSpec& a = block_.attention;
    a.heads = h.heads, a.kv_heads = h.kv_heads, a.head_dim = h.head_dim;
    a.query_scale = 1 / std::sqrt(float(h.head_dim));
    if (window) a.window = window;
    const int64_t one = CpuKvCache({&block_, 1}, type).bytes_for(positions);
    blocks_ = size_t(std::max<int64_t>(1, (int64_t(192) << 20) / one));
    kv_ = std::make_unique<CpuKvCache>(std::vector<BlockSpec>(blocks_, block_), type);
    k_ = random(61, a.kv_rows(), 1), v_ = random(61, a.kv_rows(), 2), q_ = random(tokens, a.q_rows(), 3);
    new_k_ = Tensor::empty({tokens, a.kv_rows()}, DType::f32), new_v_ = new_k_.clone(), y_ = q_.clone();
    for (int t = 0; t < tokens; ++t) {
      copy(k_, positions - tokens + t, new_k_, t);
      copy(v_, positions - tokens + t, new_v_, t);
    }
    for (size_t b = 0; b < blocks_; ++b) {
      kv_->reserve(int(b), positions);
      m.pool.run(positions, 16, [&](int64_t from, int64_t to) {
        for (int64_t p = from; p < to; ++p)
          kv_->put(int(b), p, k_.as<float>().data() + p % 61 * a.kv_rows(),
                   v_.as<float>().data() + p % 61 * a.kv_rows());
      });
    }
  }

  void run(size_t i) {
    const Sequence s{kv_.get(), positions_ - tokens_, tokens_};
    cpu_attention(m_.pool, m_.set, q_, new_k_, new_v_, {}, {&s, 1}, int(i % blocks_), block_.attention, y_);
  }

  /// Within what storage costs: 1 % of values of about 1.
  bool right() const {
    const AttentionSpec& a = block_.attention;
    const int t = tokens_ - 1, head = a.heads - 1, at = (a.kv_heads - 1) * a.head_dim, d = a.head_dim;
    const int first = a.window ? std::max(0, positions_ - *a.window) : 0;
    std::vector<double> out(static_cast<size_t>(d));
    double sum = 0;
    for (int p = first; p < positions_; ++p) {
      double dot = 0;
      for (int c = 0; c < d; ++c) dot += double(value(q_, t, head * d + c)) * double(value(k_, p % 61, at + c));
      const double w = std::exp(dot * double(a.query_scale));
      sum += w;
      for (int c = 0; c < d; ++c) out[size_t(c)] += w * double(value(v_, p % 61, at + c));
    }
    for (int c = 0; c < d; ++c)
      if (!(std::abs(double(value(y_, t, head * d + c)) - out[size_t(c)] / sum) < 0.01)) return false;
    return true;
  }

  double seen() const {  // pairs of a token and a position
    double n = 0;
    for (int t = positions_ - tokens_; t < positions_; ++t)
      n += std::min(t + 1, block_.attention.window.value_or(t + 1));
    return n;
  }
  double flops() const { return 4 * seen() * block_.attention.q_rows(); }
  /// Of the cache, for one token.
  double bytes() const { return seen() * double(kv_->bytes_for(256)) / double(256 * blocks_); }

 private:
  static float value(const Tensor& t, int row, int c) { return t.as<float>()[size_t(row * t.shape()[1] + c)]; }
  static Tensor random(int rows, int width, unsigned seed) {
    std::mt19937 rng(seed);
    std::normal_distribution<float> dist;
    Tensor t = Tensor::empty({rows, width}, DType::f32);
    for (float& x : t.as<float>()) x = dist(rng);
    return t;
  }
  static void copy(const Tensor& from, int position, Tensor& to, int row) {
    const Tensor source = from.rows(position % 61, position % 61 + 1);
    std::ranges::copy(source.as<float>(), to.rows(row, row + 1).as<float>().begin());
  }

  Machine& m_;
  int positions_, tokens_;
  size_t blocks_ = 1;
  BlockSpec block_;
  std::unique_ptr<CpuKvCache> kv_;
  Tensor k_, v_, q_, new_k_, new_v_, y_;
};

void measure(benchmark::State& state, Machine& m, Case c, bool decode) {
  c.run(0);
  if (!c.right()) return state.SkipWithError("the result is wrong");
  double best = 1e30;
  size_t i = 0;
  for (auto _ : state) {
    const double t = seconds([&] { c.run(++i); });
    state.SetIterationTime(t);
    best = std::min(best, t);
  }
  const double giga = 1e-9 * (decode ? c.bytes() : c.flops()) / best, top = decode ? m.read : m.fma;
  state.counters["best_us"] = best * 1e6;
  state.counters[decode ? "GB/s" : "GFLOP/s"] = giga;
  if (top > 0) state.counters[decode ? "%read" : "%fma"] = 100 * giga / top;
}

void add_cases(Machine& m) {
  for (const Heads& h : kHeads)
    for (const bool decode : {true, false})
      for (const int window : {0, 512})
        for (const auto& [kv, type] :
             {std::pair("bf16", DType::bf16), {"int8", DType::i8}, {"f16", DType::f16}, {"f32", DType::f32}})
          for (const int positions : {512, 4096, 16384, 32768}) {
            const std::string name =
                std::string(h.name) + (decode ? "/decode" : "/prefill") + "/window:" + std::to_string(window) +
                "/kv:" + kv + "/positions:" + std::to_string(positions) + "/threads:" + std::to_string(m.pool.size());
            benchmark::RegisterBenchmark(
                name.c_str(),
                [&m, h, positions, decode, window, t = type](benchmark::State& state) {
                  measure(state, m, {m, h, positions, decode ? 1 : kPrefill, window, t}, decode);
                })
                ->UseManualTime()
                ->MinTime(0.1)
                ->Unit(benchmark::kMicrosecond);
          }
}

}  // namespace
}  // namespace awq

int main(int argc, char** argv) try {
  using namespace awq;
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  std::map<int, Machine> machines;
  for (const int threads : {1, 2}) {
    const Machine& m = machines.try_emplace(threads, threads).first->second;
    std::printf("%s, %s, %d threads: read %.1f GB/s, fma %.0f GFLOP/s\n", cpu_name().c_str(), m.set.name, threads,
                m.read, m.fma);
  }
  std::fflush(stdout);
  for (auto& [threads, machine] : machines) add_cases(machine);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
} catch (const awq::Error& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
