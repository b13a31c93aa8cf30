#pragma once
// One page of attention, written once over a set's vectors (tiles.h); of a set's struct V it uses
//   F kVecs kAcc kTokens zero_f store set1 mul fma; load(float, F16, int8, F8); even odd(Bf16): every second element
// Everything has internal linkage.
#include "kernels/tiles.h"

namespace awq::kernels {
namespace {

// 64 rows of 1 kB would share a few sets of the cache.
inline constexpr int32_t kScoreRow = kKvPage + 16, kKvUnit = 2 * kPanel,
                         kSpan = int32_t(kPanel) * kKvPage;  // elements of a panel of values

inline float fma_of(float a, float b, float c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

/// 2^t for t <= 0 within 1.4 * 2^-24 relative (without fma 4 * 2^-24); below 2^-126 it is 0; NaN for NaN.
/// t = n + r with |r| <= 1/2; the polynomial is the minimax one of degree 6 for 2^r with p(0) = 1 (error 2^-26).
inline float exp2_approx(float t) {
  const float shift = 0x1.8p23f;  // adding it rounds to an integer, which is then in the low bits
  const float shifted = t + shift, r = t - (shifted - shift);
  float p = 0x1.41fbbcp-13f;
  p = fma_of(p, r, 0x1.5f3e54p-10f);
  p = fma_of(p, r, 0x1.3b2d4cp-7f);
  p = fma_of(p, r, 0x1.c6aee8p-5f);
  p = fma_of(p, r, 0x1.ebfbdcp-3f);
  p = fma_of(p, r, 0x1.62e430p-1f);
  p = fma_of(p, r, 1.f) * float_of((bits_of(shifted) << 23) + 0x3f800000u);
  return t < -126.f ? 0.f : p;
}

/// Where nothing but -infinity was seen, differences to the largest score must stay -infinity, not become NaN.
inline float finite_shift(float max) { return max == -__builtin_inff() ? 0.f : max; }

template <class V, int Which, class T>
AWQ_INLINE typename V::F half_unit(const T* unit, int v) {
  constexpr int kLane = kPanel / V::kVecs;
  if constexpr (!__is_same(T, Bf16))
    return V::load(unit + Which * kPanel + v * kLane);
  else if constexpr (Which == 0)
    return V::even(unit + 2 * v * kLane);
  else
    return V::odd(unit + 2 * v * kLane);
}

// Compilers take a reduction over an array of lanes apart into scalars, which costs as much as the rest of a row; these
// they turn into the widest vectors of the set. Never passed by value: that has no portable convention.
using Vec16 = float __attribute__((vector_size(64)));
using Vec8 = float __attribute__((vector_size(32)));
using Vec4 = float __attribute__((vector_size(16)));

/// Halves into halves until one lane is left; f(a, b) puts b into a.
template <class F>
AWQ_INLINE float fold_with(const Vec16& v, const F& f) {
  Vec8 a = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7);
  f(a, __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
  Vec4 b = __builtin_shufflevector(a, a, 0, 1, 2, 3);
  f(b, __builtin_shufflevector(a, a, 4, 5, 6, 7));
  f(b, __builtin_shufflevector(b, b, 2, 3, 2, 3));
  f(b, __builtin_shufflevector(b, b, 1, 1, 1, 1));
  return b[0];
}

/// n a multiple of 16; NaN is passed over.
inline float max_of_panels(const float* x, int32_t n) {
  const auto larger = [](auto& a, const auto& b) AWQ_INLINE_LAMBDA { a = b > a ? b : a; };
  Vec16 max = Vec16{} - __builtin_inff();
  for (int32_t i = 0; i < n; i += kPanel) {
    Vec16 v;
    __builtin_memcpy(&v, x + i, sizeof(v));
    larger(max, v);
  }
  return fold_with(max, larger);
}

/// x[i] = 2^(x[i] - shift) for n a multiple of 16; returns the sum.
inline float weights_and_sum(float* x, float shift, int32_t n) {
  float lanes[kLanes] = {};
  for (int32_t i = 0; i < n; i += kLanes)
    for (int32_t j = 0; j < kLanes; ++j) lanes[j] += x[i + j] = exp2_approx(x[i + j] - shift);
  Vec16 sums;
  __builtin_memcpy(&sums, lanes, sizeof(sums));
  return fold_with(sums, [](auto& a, const auto& b) AWQ_INLINE_LAMBDA { a += b; });
}

/// Attention of the rows of one step to its page. Scores are on the stack, 70 kB.
template <class V, class T>
class PageAttention {
 public:
  explicit PageAttention(const AttentionStep& s)
      : s_(s),
        keys_(static_cast<const T*>(s.page)),
        values_(keys_ + ptrdiff_t(kKvPage) * s.dim),
        scales_(kScaled ? reinterpret_cast<const float*>(values_ + ptrdiff_t(kKvPage) * s.value_dim) : nullptr),
        parts_((s.rows + V::kTokens - 1) / V::kTokens) {}

  void run() {
    parts_ == 1 ? products<false>() : products<true>();
    leave_unseen();
  }

 protected:
  static constexpr bool kScaled = sizeof(T) == 1;
  static constexpr int kV = V::kVecs, kLane = kPanel / kV, kPages = int32_t(kKvPage) / kPanel;
  using F = typename V::F;
  struct Span {
    int32_t begin, end;
    bool empty() const { return begin >= end; }
  };

  void leave_unseen() const {
    for (int32_t r = 0; r < s_.rows; ++r)
      if (seen(r, 1).empty())
        for (int32_t c = 0; c < s_.value_dim; ++c) s_.to.out[r * s_.value_dim + c] = -0.f;
  }

  /// Panels a tile of R rows spans. Tiles that follow each other over the same panels all take the same.
  template <bool kMany, int R>
  static constexpr int kPanels = panels_for<V>(kMany && 2 * R >= V::kTokens ? V::kTokens : R);

  // With many rows panels are outside: a few kB of keys or values then stay in the first-level cache for all rows.
  template <bool kMany>
  void products() {
    constexpr int kStep = kMany ? panels_for<V>(V::kTokens) : kPages;
    for (int32_t p = 0; p < kPages; p += kStep)
      for_rows([&](auto rows, int32_t r) {
        scores<rows.value, kPanels<kMany, rows.value>>(r, {p, p + kStep}, !kMany);
      });
    for (int32_t r = 0; r < s_.rows; ++r) weigh(r);
    const int32_t panels = s_.value_dim / kPanel, step = kMany ? kStep : panels;
    for (int32_t p = 0; p < panels; p += step)
      for_rows([&](auto rows, int32_t r) {
        sums<rows.value, kPanels<kMany, rows.value>>(r, {p, min_of(p + step, panels)});
      });
  }

  static constexpr int32_t max_of(int32_t a, int32_t b) { return a > b ? a : b; }

  /// Rows in equal parts that fit a register tile.
  template <class Tile>
  void for_rows(const Tile& tile) {
    for (int32_t i = 0; i < parts_; ++i) {
      const int32_t begin = s_.rows * i / parts_, end = s_.rows * (i + 1) / parts_;
      dispatch<V::kTokens>(end - begin, [&](auto rows) { tile(rows, begin); });
    }
  }

  /// What any and what all of n rows see.
  Span seen(int32_t r, int32_t n) const {
    Span s{s_.first[r], s_.last[r]};
    for (int32_t i = r + 1; i < r + n; ++i) {
      s.begin = min_of(s.begin, s_.first[i]);
      s.end = max_of(s.end, s_.last[i]);
    }
    return s;
  }
  Span shared(int32_t r, int32_t n) const {
    Span s{s_.first[r], s_.last[r]};
    for (int32_t i = r + 1; i < r + n; ++i) {
      s.begin = max_of(s.begin, s_.first[i]);
      s.end = min_of(s.end, s_.last[i]);
    }
    return s;
  }

  // Few rows read keys from memory, and the P panels of a tile lie apart: prefetchers follow one stream a page of
  // memory, and more streams are more requests in flight. Many rows read them from the cache, panel after panel.
  template <int R, int P>
  void scores(int32_t r, Span panels, bool apart) {
    const Span s = seen(r, R);
    const Span p{max_of(panels.begin, s.begin / kPanel), min_of(panels.end, (s.end + kPanel - 1) / kPanel)};
    const int32_t n = p.end - p.begin, tiles = (n + P - 1) / P, begin = min_of(p.begin, panels.end - tiles * P);
    if constexpr (P > 4)  // half as wide where that leaves fewer panels that nobody asked for
      if (0 < n % P && n % P <= P / 2) return scores<R, P / 2>(r, panels, apart);
    for (int32_t i = 0; i < tiles; ++i) score_tile<R, P>(r, begin + (apart ? i : i * P), apart ? tiles : 1);
  }

  template <int R, int P>
  void score_tile(int32_t r0, int32_t panel, int32_t step) {
    const float* q = s_.q + r0 * s_.dim;
    const ptrdiff_t one = ptrdiff_t(s_.dim) * kPanel, width = one * step;
    const T* keys = keys_ + panel * one;
    F acc[R][P * kV];
    AWQ_UNROLL for (int i = 0; i < R * P * kV; ++i) acc[i / (P * kV)][i % (P * kV)] = V::zero_f();
    const auto channel = [&](auto which, const float* x) AWQ_INLINE_LAMBDA {
      F k[P * kV];
      AWQ_UNROLL for (int v = 0; v < P * kV; ++v) k[v] = half_unit<V, which.value>(keys + v / kV * width, v % kV);
      AWQ_UNROLL for (int r = 0; r < R; ++r) {
        const F xs = V::set1(x[r * s_.dim]);
        AWQ_UNROLL for (int v = 0; v < P * kV; ++v) acc[r][v] = V::fma(xs, k[v], acc[r][v]);
      }
    };
    for (int32_t c = 0; c < s_.dim; c += 2, keys += kKvUnit) {
      if constexpr (2 * R <= V::kTokens)  // the same channels of the next tile's panels
        for (int p = 0; p < P; ++p) __builtin_prefetch(keys + p * width + one);
      channel(Int<0>(), q + c);
      channel(Int<1>(), q + c + 1);
    }
    AWQ_UNROLL for (int r = 0; r < R; ++r) AWQ_UNROLL for (int v = 0; v < P * kV; ++v) {
      const int32_t at = (panel + v / kV * step) * kPanel + v % kV * kLane;
      if constexpr (kScaled) acc[r][v] = V::mul(acc[r][v], V::load(scales_ + at));
      V::store(scores_ + (r0 + r) * kScoreRow + at, acc[r][v]);
    }
  }

  /// Scores become weights. Whole panels are computed: beyond what the row sees the weight is 0, which adds nothing.
  void weigh(int32_t r) {
    const Span s = seen(r, 1);
    float max = -__builtin_inff(), sum = 0;
    if (!s.empty()) {
      const int32_t begin = s.begin / kPanel * kPanel, end = (s.end + kPanel - 1) / kPanel * kPanel;
      float* x = scores_ + r * kScoreRow;
      change(r, x, begin, end);
      for (int32_t i = begin; i < s.begin; ++i) x[i] = max;
      for (int32_t i = s.end; i < end; ++i) x[i] = max;
      max = max_of_panels(x + begin, end - begin);
      sum = weights_and_sum(x + begin, finite_shift(max), end - begin);
      if constexpr (kScaled)
        for (int32_t i = begin; i < end; ++i) x[i] *= scales_[kKvPage + i];
    }
    s_.to.max[r] = max;
    s_.to.sum[r] = sum;
  }

  /// What some families do to scores.
  void change(int32_t r, float* x, int32_t begin, int32_t end) const {
    if (s_.cap != 0)
      for (int32_t i = begin; i < end; ++i) x[i] = s_.cap * tanh_approx(x[i] / s_.cap);
    if (s_.slopes)
      for (int32_t i = begin; i < end; ++i) x[i] += s_.slopes[r] * float(i - s_.query[r]);
  }

  template <int R, int P>
  void sums(int32_t r, Span panels) {
    int32_t p = panels.begin;
    for (; p + P <= panels.end; p += P) sum_tile<R, P>(r, p);
    if constexpr (P > 1)
      if (p < panels.end) sums<R, P / 2>(r, {p, panels.end});
  }

  template <int R, int P>
  void sum_tile(int32_t r0, int32_t panel) {
    const float* weights = scores_ + r0 * kScoreRow;
    const T* values = values_ + panel * kSpan;
    F acc[R][P * kV];
    AWQ_UNROLL for (int i = 0; i < R * P * kV; ++i) acc[i / (P * kV)][i % (P * kV)] = V::zero_f();
    const auto row_of = [&](auto which, int v, int32_t at) AWQ_INLINE_LAMBDA {
      return half_unit<V, which.value>(values + v / kV * kSpan + at / 2 * kKvUnit, v % kV);
    };
    const auto add_all = [&](auto which, int32_t at) AWQ_INLINE_LAMBDA {
      F x[P * kV];
      AWQ_UNROLL for (int v = 0; v < P * kV; ++v) x[v] = row_of(which, v, at);
      AWQ_UNROLL for (int r = 0; r < R; ++r) {
        const F w = V::set1(weights[r * kScoreRow + at + which.value]);
        AWQ_UNROLL for (int v = 0; v < P * kV; ++v) acc[r][v] = V::fma(w, x[v], acc[r][v]);
      }
    };
    // Positions that some of the rows must not see: even a weight of 0 would let a NaN through.
    const auto add_some = [&](int32_t begin, int32_t end) AWQ_INLINE_LAMBDA {
      for (int32_t at = begin; at < end; ++at) {
        F x[P * kV];
        AWQ_UNROLL for (int v = 0; v < P * kV; ++v) x[v] = at % 2 ? row_of(Int<1>(), v, at) : row_of(Int<0>(), v, at);
        AWQ_UNROLL for (int r = 0; r < R; ++r) if (s_.first[r0 + r] <= at && at < s_.last[r0 + r])
            AWQ_UNROLL for (int v = 0; v < P * kV; ++v) acc[r][v] =
                V::fma(V::set1(weights[r * kScoreRow + at]), x[v], acc[r][v]);
      }
    };
    const Span any = seen(r0, R), all = shared(r0, R);
    Span pairs{(all.begin + 1) / 2 * 2, all.end / 2 * 2};
    if (pairs.empty()) pairs = {any.end, any.end};
    add_some(any.begin, pairs.begin);
    for (int32_t at = pairs.begin; at < pairs.end; at += 2) {
      if constexpr (2 * R <= V::kTokens)
        for (int p = 0; p < P; ++p) {
          const T* ahead = values + p * kSpan + at / 2 * kKvUnit;
          __builtin_prefetch(reinterpret_cast<const char*>(ahead) + kBytesAhead);
        }
      add_all(Int<0>(), at);
      add_all(Int<1>(), at);
    }
    add_some(pairs.end, any.end);
    AWQ_UNROLL for (int r = 0; r < R; ++r) AWQ_UNROLL for (int v = 0; v < P * kV; ++v)
        V::store(s_.to.out + (r0 + r) * s_.value_dim + panel * kPanel + v * kLane, acc[r][v]);
  }

  const AttentionStep& s_;
  const T *keys_, *values_;
  const float* scales_;  // of keys, then of values
  int32_t parts_;
  alignas(64) float scores_[int32_t(kMaxAttentionRows) * kScoreRow];
};

template <class V, class T>
void attend(const AttentionStep& s) {
  PageAttention<V, T>(s).run();
}

inline void attention_merge(const AttentionPart& part, int32_t rows, int32_t value_dim, const AttentionPart& into) {
  for (int32_t r = 0; r < rows; ++r) {
    const float max = into.max[r] > part.max[r] ? into.max[r] : part.max[r], shift = finite_shift(max);
    const float a = exp2_approx(into.max[r] - shift), b = exp2_approx(part.max[r] - shift);
    into.max[r] = max;
    into.sum[r] = into.sum[r] * a + part.sum[r] * b;
    float* y = into.out + r * value_dim;
    for (int32_t c = 0; c < value_dim; ++c) y[c] = y[c] * a + part.out[r * value_dim + c] * b;
  }
}

}  // namespace
}  // namespace awq::kernels
