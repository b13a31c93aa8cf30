#pragma once
// The register-tiled float product, written once over a set's vectors; tiles_int.h has the integer ones. A set hands in
// a struct V of static functions on
//   F: a vector of float;  kVecs: of them to a panel of 16;  kAcc: registers to spend on accumulators
//   kTokens: rows of the tile for many tokens;  kFew: tokens up to which weights come straight from memory
//   zero_f load(float, Bf16, F16) store set1 mul fma
// Everything has internal linkage.
#include "kernels/generic.h"

#if defined(__clang__)
#define AWQ_UNROLL _Pragma("unroll")
#else
#define AWQ_UNROLL _Pragma("GCC unroll 16")
#endif
#define AWQ_INLINE inline __attribute__((always_inline))
#define AWQ_INLINE_LAMBDA __attribute__((always_inline))

namespace awq::kernels {
namespace {

struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};
/// e4m3: a sign, four bits of exponent, bias 7, three of fraction. Moved to their places in a float they are 2^-120 of
/// the value, exactly, subnormals too; what stands for NaN reads as 480, and is never written.
struct F8 {
  uint8_t bits;
};
template <int N>
struct Int {
  static constexpr int value = N;
};

/// f(Int<n>()) for n in 1 .. Max.
template <int Max, class F>
AWQ_INLINE void dispatch(int32_t n, const F& f) {
  if (n == Max) {
    f(Int<Max>());
  } else if constexpr (Max > 1) {
    dispatch<Max - 1>(n, f);
  }
}

template <class T>
constexpr T min_of(T a, T b) {
  return a < b ? a : b;
}

/// Panels a tile of `rows` tokens spans: as many as the accumulators allow, at most 8. Few tokens have enough
/// independent sums in flight to cover the latency of fma with 4, but memory delivers 8 streams faster.
template <class V>
constexpr int panels_for(int rows) {
  int p = 8;
  while (p > 1 && rows * p * V::kVecs > V::kAcc) p /= 2;
  return p;
}

/// tile(c, row) on a whole panel's width. The last panel may have only n < 16 columns: it goes through a buffer.
template <int R, class F>
AWQ_INLINE void on_panel(float* c, ptrdiff_t c_row, int32_t n, const F& tile) {
  if (n == kPanel) return tile(c, c_row);
  float whole[R * kPanel] = {};
  for (int r = 0; r < R; ++r) __builtin_memcpy(whole + r * kPanel, c + r * c_row, size_t(n) * sizeof(float));
  tile(whole, ptrdiff_t(kPanel));
  for (int r = 0; r < R; ++r) __builtin_memcpy(c + r * c_row, whole + r * kPanel, size_t(n) * sizeof(float));
}

/// How far ahead weights are asked for while they stream from memory: on Zen 3 this gave a tenth to a third more for 1
/// to 16 tokens; 1 kB gave half of that and 4 kB nothing more.
inline constexpr int32_t kBytesAhead = 2048;

// ---- float weights ----

template <class T>
struct Panels {
  const T* at;
  ptrdiff_t panel, k;
  Panels skip(int32_t panels, int32_t ks) const { return {at + panels * panel + ks * k, panel, k}; }
};

/// c[R][P * 16] (+)= a[R][k] * b: one chain of fma per output. kAhead: b comes from memory.
template <class V, int R, int P, bool kAhead = false, class T>
AWQ_INLINE void gemm_tile(const float* a, ptrdiff_t a_row, Panels<T> b, float* c, ptrdiff_t c_row, int32_t k,
                          bool accumulate) {
  constexpr int kV = V::kVecs, kLane = kPanel / kV;
  typename V::F acc[R][P * kV];
  AWQ_UNROLL for (int r = 0; r < R; ++r) AWQ_UNROLL for (int v = 0; v < P * kV; ++v) acc[r][v] =
      accumulate ? V::load(c + r * c_row + v * kLane) : V::zero_f();
  // The smaller side is held in registers, the other one passes through.
  for (int32_t i = 0; i < k; ++i, b.at += b.k) {
    if constexpr (kAhead)
      for (int p = 0; p < P; ++p) __builtin_prefetch(reinterpret_cast<const char*>(b.at + p * b.panel) + kBytesAhead);
    const auto weights = [&](int v) AWQ_INLINE_LAMBDA { return V::load(b.at + v / kV * b.panel + v % kV * kLane); };
    const auto token = [&](int r) AWQ_INLINE_LAMBDA { return V::set1(a[r * a_row + i]); };
    if constexpr (R < P * kV) {
      typename V::F x[R];
      AWQ_UNROLL for (int r = 0; r < R; ++r) x[r] = token(r);
      AWQ_UNROLL for (int v = 0; v < P * kV; ++v) {
        const typename V::F w = weights(v);
        AWQ_UNROLL for (int r = 0; r < R; ++r) acc[r][v] = V::fma(x[r], w, acc[r][v]);
      }
    } else {
      typename V::F w[P * kV];
      AWQ_UNROLL for (int v = 0; v < P * kV; ++v) w[v] = weights(v);
      AWQ_UNROLL for (int r = 0; r < R; ++r) {
        const typename V::F x = token(r);
        AWQ_UNROLL for (int v = 0; v < P * kV; ++v) acc[r][v] = V::fma(x, w[v], acc[r][v]);
      }
    }
  }
  AWQ_UNROLL for (int r = 0; r < R; ++r) AWQ_UNROLL for (int v = 0; v < P * kV; ++v)
      V::store(c + r * c_row + v * kLane, acc[r][v]);
}

/// R tokens straight from memory: for few tokens every weight is used once, and there is nothing to prepare.
template <class V, int R, class T>
void gemm_few(const Gemm& g) {
  constexpr int kP = panels_for<V>(R);
  Panels<T> b{static_cast<const T*>(g.b), g.b_panel, g.b_k};
  int32_t n = 0;
  for (; n + kP * kPanel <= g.n; n += kP * kPanel, b = b.skip(kP, 0))
    gemm_tile<V, R, kP, true>(g.a, g.a_row, b, g.c + n, g.c_row, g.k, g.accumulate);
  for (; n < g.n; n += kPanel, b = b.skip(1, 0))
    on_panel<R>(g.c + n, g.c_row, min_of<int32_t>(kPanel, g.n - n), [&](float* c, ptrdiff_t c_row) {
      gemm_tile<V, R, 1, true>(g.a, g.a_row, b, c, c_row, g.k, g.accumulate);
    });
}

// Columns: a panel's 20 kB and a tile's activations share the first-level cache.
inline constexpr int32_t kBlockK = 320;
// Tokens: their 184 kB stay in the second level.
inline constexpr int32_t kBlockM = 144;

/// One block of columns and tokens, over all panels. Buffers are on the stack, about 225 kB.
template <class V, class T>
class GemmBlock {
 public:
  explicit GemmBlock(const Gemm& g) : g_(g) {}

  void run(int32_t k0, int32_t k, int32_t m0, int32_t m) {
    // Rows at a power of two apart would share a few sets of the cache.
    for (int32_t i = 0; i < m; ++i)
      __builtin_memcpy(a_ + i * kBlockK, g_.a + (m0 + i) * g_.a_row + k0, size_t(k) * sizeof(float));
    const Panels<T> b = Panels<T>{static_cast<const T*>(g_.b), g_.b_panel, g_.b_k}.skip(0, k0);
    const bool accumulate = g_.accumulate || k0 > 0;
    float* c = g_.c + m0 * g_.c_row;
    int32_t n = 0;
    for (; n + kP * kPanel <= g_.n; n += kP * kPanel)
      tiles<kP>(prepare<kP>(b.skip(n / kPanel, 0), k), c + n, kPanel, k, m, accumulate);
    for (; n < g_.n; n += kPanel)
      tiles<1>(prepare<1>(b.skip(n / kPanel, 0), k), c + n, min_of<int32_t>(kPanel, g_.n - n), k, m, accumulate);
  }

 private:
  static constexpr int kP = panels_for<V>(V::kTokens);

  /// Panels of floats with 16 to a column: as they are, or decoded here once for all tokens.
  template <int P>
  Panels<float> prepare(Panels<T> b, int32_t k) {
    if constexpr (__is_same(T, float))
      if (b.k == kPanel) return b;
    constexpr int kLane = kPanel / V::kVecs;
    for (int32_t p = 0; p < P; ++p)
      for (int32_t i = 0; i < k; ++i)
        for (int v = 0; v < V::kVecs; ++v)
          V::store(b_ + (p * kBlockK + i) * kPanel + v * kLane, V::load(b.at + p * b.panel + i * b.k + v * kLane));
    return {b_, ptrdiff_t(kBlockK) * kPanel, kPanel};
  }

  template <int P>
  void tiles(Panels<float> b, float* c, int32_t n, int32_t k, int32_t m, bool accumulate) {
    int32_t i = 0;
    for (; i < m; i += V::kTokens)
      dispatch<V::kTokens>(min_of<int32_t>(V::kTokens, m - i), [&](auto rows) {
        on_panel<rows.value>(c + i * g_.c_row, g_.c_row, n, [&](float* to, ptrdiff_t row) {
          gemm_tile<V, rows.value, P>(a_ + i * kBlockK, kBlockK, b, to, row, k, accumulate);
        });
      });
  }

  const Gemm& g_;
  alignas(64) float a_[kBlockM * kBlockK];
  alignas(64) float b_[kP * kBlockK * kPanel];
};

template <class V, class T>
void gemm_many(const Gemm& g) {
  GemmBlock<V, T> block(g);
  const int32_t blocks = g.k > kBlockK ? (g.k + kBlockK - 1) / kBlockK : 1, step = (g.k + blocks - 1) / blocks;
  for (int32_t b = 0; b < blocks; ++b)
    for (int32_t m = 0; m < g.m; m += kBlockM) {
      const int32_t k = b * step;
      block.run(k, min_of(step, g.k - k), m, min_of<int32_t>(kBlockM, g.m - m));
    }
}

/// Tokens in equal parts that fit a tile, eight panels at a time so that the second part finds them in the cache.
template <class V, class T>
void gemm_parts(const Gemm& g) {
  const int32_t parts = (g.m + V::kTokens - 1) / V::kTokens, step = 8 * kPanel;
  for (int32_t n = 0; n < g.n; n += step)
    for (int32_t i = 0; i < parts; ++i) {
      const int32_t begin = g.m * i / parts, end = g.m * (i + 1) / parts;
      Gemm part = g;
      part.a += begin * g.a_row;
      part.b = static_cast<const T*>(g.b) + n / kPanel * g.b_panel;
      part.c += begin * g.c_row + n;
      part.n = min_of(step, g.n - n);
      dispatch<V::kTokens>(end - begin, [&](auto rows) { gemm_few<V, rows.value, T>(part); });
    }
}

template <class V, class T>
void gemm(const Gemm& g) {
  (g.m <= V::kFew ? gemm_parts<V, T> : gemm_many<V, T>)(g);
}

}  // namespace
}  // namespace awq::kernels
