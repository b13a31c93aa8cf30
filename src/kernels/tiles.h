#pragma once
// The register-tiled products, written once over a set's vectors. A set hands in a struct V of static functions:
//   F, I: vectors of float and of int32;  kVecs: of them to a panel of 16;  kAcc: registers to spend on accumulators
//   kTokens, kI4Tokens: rows of the tiles for many tokens;  kI4Chains: independent integer sums of one token
//   zero_f load(float, Bf16, F16) store set1 mul fma; zero_i load_words load_bytes set1 and shr16<n> sub mul dot
//   to_float
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

/// Panels a tile of `rows` tokens spans: as many as the accumulators allow, at most 4, so that few tokens still have
/// enough independent sums in flight to cover the latency of fma.
template <class V>
constexpr int panels_for(int rows) {
  int p = 4;
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
// Tokens: their 92 kB stay in the second level.
inline constexpr int32_t kBlockM = 72;

/// One block of columns and tokens, over all panels. Buffers are on the stack, about 130 kB.
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

/// Tokens in equal parts that fit a tile, four panels at a time so that the second part finds them in the cache.
template <class V, class T>
void gemm_parts(const Gemm& g) {
  const int32_t parts = (g.m + V::kTokens - 1) / V::kTokens, step = 4 * kPanel;
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

// ---- 4-bit weights ----

/// One group of one panel in the stream of PackedI4.
struct I4Group {
  const uint8_t* at;
  int32_t columns;
  const float* scales() const { return reinterpret_cast<const float*>(at + 8 * columns); }
  const uint8_t* zeros() const { return at + 8 * columns + 4 * kPanel; }
};
inline I4Group i4_group(const PackedI4& w, int32_t panel, int32_t group) {
  return {w.stream + (ptrdiff_t(panel) * (w.cols / w.group) + group) * (8 * w.group + 80), w.group};
}
inline int32_t pair_of(const int16_t* x) {
  int32_t pair = 0;
  __builtin_memcpy(&pair, x, sizeof(pair));
  return pair;
}

/// Columns 2j and 2j + 1 of a word's eight, as a pair of int16.
template <class V, int J>
AWQ_INLINE typename V::I nibbles(typename V::I words) {
  if constexpr (J == 0)
    return V::and_i(words, V::set1(0x000f000f));
  else if constexpr (J == 3)
    return V::template shr16<12>(words);
  else
    return V::and_i(V::template shr16<4 * J>(words), V::set1(0x000f000f));
}

/// R tokens, nibbles decoded in registers. sums[r][v] = sum of code * x over a group of a panel.
template <class V, int R>
AWQ_INLINE void i4_dot(const I4Group& w, const int16_t* x, ptrdiff_t x_row, typename V::I (&sums)[R][V::kVecs]) {
  constexpr int kV = V::kVecs, kC = R <= 2 ? V::kI4Chains : (V::kI4Chains + 1) / 2;
  typename V::I acc[kC][R][kV];
  AWQ_UNROLL for (int i = 0; i < kC * R * kV; ++i) acc[i / (R * kV)][i / kV % R][i % kV] = V::zero_i();
  const auto step = [&](auto j, const typename V::I(&words)[kV], const int16_t* at) AWQ_INLINE_LAMBDA {
    typename V::I pairs[kV];
    AWQ_UNROLL for (int v = 0; v < kV; ++v) pairs[v] = nibbles<V, j.value>(words[v]);
    AWQ_UNROLL for (int r = 0; r < R; ++r) {
      const typename V::I xs = V::set1(pair_of(at + r * x_row + 2 * j.value));
      AWQ_UNROLL for (int v = 0; v < kV; ++v) acc[j.value % kC][r][v] = V::dot(acc[j.value % kC][r][v], pairs[v], xs);
    }
  };
  for (int32_t c = 0; c < w.columns; c += 8) {
    __builtin_prefetch(w.at + 8 * c + kBytesAhead);
    typename V::I words[kV];
    AWQ_UNROLL for (int v = 0; v < kV; ++v) words[v] = V::load_words(w.at + 8 * c + v * (64 / kV));
    step(Int<0>(), words, x + c);
    step(Int<1>(), words, x + c);
    step(Int<2>(), words, x + c);
    step(Int<3>(), words, x + c);
  }
  AWQ_UNROLL for (int i = 0; i < R * kV; ++i) {
    sums[i / kV][i % kV] = acc[0][i / kV][i % kV];
    AWQ_UNROLL for (int j = 1; j < kC; ++j) sums[i / kV][i % kV] =
        V::add_i(sums[i / kV][i % kV], acc[j][i / kV][i % kV]);
  }
}

/// y[R][16] of one panel.
template <class V, int R>
AWQ_INLINE void i4_few_panel(const PackedI4& w, const ActI16& x, int32_t panel, float* y, ptrdiff_t y_row) {
  constexpr int kV = V::kVecs, kLane = kPanel / kV;
  const int32_t groups = w.cols / w.group;
  typename V::F out[R][kV];
  AWQ_UNROLL for (int i = 0; i < R * kV; ++i) out[i / kV][i % kV] = V::zero_f();
  for (int32_t g = 0; g < groups; ++g) {
    const I4Group at = i4_group(w, panel, g);
    typename V::I sums[R][kV];
    i4_dot<V, R>(at, x.codes + g * w.group, w.cols, sums);
    AWQ_UNROLL for (int v = 0; v < kV; ++v) {
      const typename V::F scale = V::load(at.scales() + v * kLane);
      const typename V::I zero = V::load_bytes(at.zeros() + v * kLane);
      AWQ_UNROLL for (int r = 0; r < R; ++r) {
        const int32_t i = r * groups + g;
        const typename V::I d = V::sub_i(sums[r][v], V::mul_i(zero, V::set1(x.sums[i])));
        out[r][v] = V::fma(V::mul(scale, V::set1(x.scales[i])), V::to_float(d), out[r][v]);
      }
    }
  }
  AWQ_UNROLL for (int i = 0; i < R * kV; ++i) V::store(y + i / kV * y_row + i % kV * kLane, out[i / kV][i % kV]);
}

/// Up to four tokens at a time, in equal parts; the panel stays in the first-level cache for all of them.
template <class V>
void i4_few(const PackedI4& w, const ActI16& x, float* y, ptrdiff_t y_row, int32_t panel_begin, int32_t panel_end) {
  const int32_t parts = (x.tokens + 3) / 4, groups = w.cols / w.group;
  for (int32_t p = panel_begin; p < panel_end; ++p)
    for (int32_t i = 0; i < parts; ++i) {
      const int32_t begin = x.tokens * i / parts, end = x.tokens * (i + 1) / parts;
      const ptrdiff_t group = ptrdiff_t(begin) * groups;
      const ActI16 part{x.codes + group * w.group, x.scales + group, x.sums + group, end - begin, w.cols, w.group};
      dispatch<4>(end - begin, [&](auto rows) {
        on_panel<rows.value>(y + begin * y_row + p * kPanel, y_row, min_of<int32_t>(kPanel, w.rows - p * kPanel),
                             [&](float* to, ptrdiff_t row) { i4_few_panel<V, rows.value>(w, part, p, to, row); });
      });
    }
}

inline constexpr int32_t kI4BlockK = 256;  // columns decoded at once: 8 kB a panel
// Tokens: their 36 kB of codes pass through the first-level cache once a panel.
inline constexpr int32_t kI4BlockM = 72;

/// Some groups of columns and a block of tokens: each panel's codes are decoded once, zero points subtracted.
template <class V>
class I4Block {
 public:
  I4Block(const PackedI4& w, const ActI16& x, float* y, ptrdiff_t y_row) : w_(w), x_(x), y_(y), y_row_(y_row) {}

  void run(int32_t g0, int32_t groups, int32_t t0, int32_t tokens, int32_t panel_begin, int32_t panel_end) {
    g0_ = g0, groups_ = groups, tokens_ = tokens;
    const int32_t all = w_.cols / w_.group;
    for (int32_t t = 0; t < tokens; ++t) {
      const ptrdiff_t from = ptrdiff_t(t0 + t) * all + g0;
      __builtin_memcpy(x_codes_ + t * kI4BlockK, x_.codes + from * w_.group,
                       size_t(groups * w_.group) * sizeof(int16_t));
      __builtin_memcpy(x_scales_ + t * kMaxGroups, x_.scales + from, size_t(groups) * sizeof(float));
    }
    float* y = y_ + t0 * y_row_;
    int32_t p = panel_begin;
    for (; p + kP <= panel_end && (p + kP) * kPanel <= w_.rows; p += kP) panels<kP>(p, y + p * kPanel, kPanel);
    for (; p < panel_end; ++p) panels<1>(p, y + p * kPanel, min_of<int32_t>(kPanel, w_.rows - p * kPanel));
  }

 private:
  static constexpr int kV = V::kVecs, kLane = kPanel / kV, kP = V::kI4Panels, kMaxGroups = kI4BlockK / 8;

  template <int P>
  void panels(int32_t panel, float* y, int32_t n) {
    for (int32_t p = 0; p < P; ++p)
      for (int32_t g = 0; g < groups_; ++g)
        decode(i4_group(w_, panel + p, g0_ + g), pairs_ + (p * kI4BlockK + g * w_.group) / 2 * kPanel);
    for (int32_t t = 0; t < tokens_; t += V::kI4Tokens)
      dispatch<V::kI4Tokens>(min_of<int32_t>(V::kI4Tokens, tokens_ - t), [&](auto rows) {
        on_panel<rows.value>(y + t * y_row_, y_row_, n,
                             [&](float* to, ptrdiff_t row) { tile<rows.value, P>(panel, t, to, row); });
      });
  }

  void decode(const I4Group& w, int32_t* out) {
    for (int v = 0; v < kV; ++v) {
      const typename V::I zero = V::load_bytes(w.zeros() + v * kLane), both = V::or_i(zero, V::template shl<16>(zero));
      for (int32_t c = 0; c < w.columns; c += 8) {
        const typename V::I words = V::load_words(w.at + 8 * c + v * (64 / kV));
        int32_t* to = out + c / 2 * kPanel + v * kLane;
        V::store(to, V::sub16(nibbles<V, 0>(words), both));
        V::store(to + kPanel, V::sub16(nibbles<V, 1>(words), both));
        V::store(to + 2 * kPanel, V::sub16(nibbles<V, 2>(words), both));
        V::store(to + 3 * kPanel, V::sub16(nibbles<V, 3>(words), both));
      }
    }
  }

  template <int R, int P>
  AWQ_INLINE void tile(int32_t panel, int32_t t, float* y, ptrdiff_t y_row) {
    typename V::F out[R][P * kV];
    AWQ_UNROLL for (int r = 0; r < R; ++r) AWQ_UNROLL for (int v = 0; v < P * kV; ++v) out[r][v] =
        g0_ ? V::load(y + r * y_row + v * kLane) : V::zero_f();
    for (int32_t g = 0; g < groups_; ++g) {
      typename V::I acc[R][P * kV];
      AWQ_UNROLL for (int r = 0; r < R; ++r) AWQ_UNROLL for (int v = 0; v < P * kV; ++v) acc[r][v] = V::zero_i();
      const int16_t* x = x_codes_ + t * kI4BlockK + g * w_.group;
      const int32_t* w = pairs_ + g * w_.group / 2 * kPanel;
      for (int32_t i = w_.group / 2; i > 0; --i, w += kPanel, x += 2) {
        typename V::I pairs[P * kV];
        AWQ_UNROLL for (int v = 0; v < P * kV; ++v) pairs[v] =
            V::load_pairs(w + v / kV * (kI4BlockK / 2 * kPanel) + v % kV * kLane);
        AWQ_UNROLL for (int r = 0; r < R; ++r) {
          const typename V::I xs = V::set1(pair_of(x + r * kI4BlockK));
          AWQ_UNROLL for (int v = 0; v < P * kV; ++v) acc[r][v] = V::dot(acc[r][v], pairs[v], xs);
        }
      }
      AWQ_UNROLL for (int v = 0; v < P * kV; ++v) {
        const typename V::F scale = V::load(i4_group(w_, panel + v / kV, g0_ + g).scales() + v % kV * kLane);
        AWQ_UNROLL for (int r = 0; r < R; ++r) out[r][v] =
            V::fma(V::mul(scale, V::set1(x_scales_[(t + r) * kMaxGroups + g])), V::to_float(acc[r][v]), out[r][v]);
      }
    }
    AWQ_UNROLL for (int r = 0; r < R; ++r) AWQ_UNROLL for (int v = 0; v < P * kV; ++v)
        V::store(y + r * y_row + v * kLane, out[r][v]);
  }

  const PackedI4& w_;
  const ActI16& x_;
  float* y_;
  ptrdiff_t y_row_;
  int32_t g0_ = 0, groups_ = 0, tokens_ = 0;
  alignas(64) int16_t x_codes_[kI4BlockM * kI4BlockK];
  alignas(64) int32_t pairs_[kP * kI4BlockK / 2 * kPanel];
  float x_scales_[kI4BlockM * kMaxGroups];
};

template <class V>
void i4_many(const PackedI4& w, const ActI16& x, float* y, ptrdiff_t y_row, int32_t panel_begin, int32_t panel_end) {
  I4Block<V> block(w, x, y, y_row);
  const int32_t groups = w.cols / w.group, step = kI4BlockK / w.group;
  for (int32_t t = 0; t < x.tokens; t += kI4BlockM)
    for (int32_t g = 0; g < groups; g += step)
      block.run(g, min_of(step, groups - g), t, min_of<int32_t>(kI4BlockM, x.tokens - t), panel_begin, panel_end);
}

template <class V>
void matmul_i4(const PackedI4& w, const ActI16& x, float* y, ptrdiff_t y_row, int32_t panel_begin, int32_t panel_end) {
  (x.tokens <= V::kI4Few ? i4_few<V> : i4_many<V>)(w, x, y, y_row, panel_begin, panel_end);
}

}  // namespace
}  // namespace awq::kernels
