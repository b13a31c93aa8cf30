#pragma once
// The register-tiled products of 4- and 8-bit weights with integer activations, written once over a set's vectors.
// Beside what tiles.h lists, a set hands in a struct V of
//   I: a vector of int32;  kIntTokens, kIntPanels: the tile for many tokens;  kFewTokens: of the tile for few
//   kIntBlockBytes: of a token's codes in a block
//   kIntFew: tokens up to which weights come straight from memory;  kFewSums: vectors of integer sums for them, and
//   kChains: of those, how many independent ones a product takes
//   zero_i load_words load_bytes load store(int32) set1 and_i or_i shl<n> shr16<n> add_i sub_i sub8 sub16 to_float
//   dot16: sums of two products of int16;  dot8(sum, a, b): of four int8, b signed and a as kByteDot says
// Everything has internal linkage.
#include "kernels/tiles.h"

namespace awq::kernels {
namespace {

/// A set's products of bytes: dot8 with an unsigned or a signed first operand, or signed and beside it, for many
/// tokens, dot_pairs: of 2 rows x 8 with 2 rows x 8, to 2 x 2 sums, and two_rows zip_low32 zip_high32 zip_low64
/// zip_high64.
enum class ByteDot { kUnsigned, kSigned, kPairs };

/// One group of one panel in the stream of PackedInt.
struct IntGroup {
  const uint8_t* at;
  int32_t code_bytes;
  bool half_scales;
  const uint8_t* scales() const { return at + code_bytes; }
  const uint8_t* zeros() const { return scales() + (half_scales ? 2 : 4) * kPanel; }
};
inline int32_t code_bytes(const PackedInt& w) { return w.group * w.bits / 8 * kPanel; }
inline IntGroup int_group(const PackedInt& w, int32_t panel, int32_t group) {
  const int32_t codes = code_bytes(w);
  const ptrdiff_t bytes = codes + (w.half_scales ? 3 : 5) * kPanel;
  return {w.stream + (ptrdiff_t(panel) * (w.cols / w.group) + group) * bytes, codes, w.half_scales};
}
template <class V>
AWQ_INLINE typename V::F load_scales(const IntGroup& g, int v) {
  constexpr int kLane = kPanel / V::kVecs;
  return g.half_scales ? V::load(reinterpret_cast<const F16*>(g.scales()) + v * kLane)
                       : V::load(reinterpret_cast<const float*>(g.scales()) + v * kLane);
}

/// f(Int<i>()) for i in 0 .. N - 1: indices are constants from the start, which keeps arrays of vectors in registers.
template <int N, class F>
AWQ_INLINE void unroll(const F& f) {
  if constexpr (N > 0) {
    unroll<N - 1>(f);
    f(Int<N - 1>());
  }
}

inline int32_t word_at(const void* p) {
  int32_t word = 0;
  __builtin_memcpy(&word, p, sizeof(word));
  return word;
}

/// How a word of the stream meets activations: in pieces of 4 bytes of codes, each 2 columns of 16 bits or 4 of 8.
template <class V, class Code, int Bits>
struct WordPieces {
  static constexpr int kColumns = 32 / Bits, kBytes = kColumns * int(sizeof(Code)), kPieces = kBytes / 4;
  template <int P>
  static AWQ_INLINE typename V::I piece(typename V::I words) {
    constexpr int kShift = sizeof(Code) == 1 ? 4 * P : Bits == 8 ? 8 * P : 8 * (P % 2) + 4 * (P / 2);
    constexpr int kMask = (sizeof(Code) == 1 ? 0x01010101 : 0x00010001) * ((1 << Bits) - 1);
    if constexpr (kShift > 0) words = V::template shr16<kShift>(words);
    if constexpr (kShift + Bits == 16) return words;
    return V::and_i(words, V::set1(kMask));
  }
};

// ---- few tokens: codes are unpacked in registers, the zero point is taken off the sum ----

/// Panels that R tokens meet side by side: each is a stream of its own, and memory delivers several streams faster than
/// one (Emerald Rapids, two cores: 20 GB/s from one, 24 from two, 30 from four, 33 from eight).
template <class V>
constexpr int few_panels(int rows) {
  int p = 8;
  while (p > 1 && rows * p * V::kVecs > V::kFewSums) p /= 2;
  return p;
}
inline constexpr int32_t kFewAhead = 1024;  // bytes of each stream

/// sums[r][v] = sum of code * x over a group of P panels, for R tokens.
template <class V, class Code, int Bits, int R, int P>
AWQ_INLINE void few_dot(const uint8_t* w, ptrdiff_t panel, int32_t bytes, const Code* x, ptrdiff_t x_row,
                        typename V::I (&sums)[R][P * V::kVecs]) {
  using W = WordPieces<V, Code, Bits>;
  constexpr int kV = V::kVecs, kC = R * P >= V::kChains ? 1 : V::kChains / (R * P);
  typename V::I acc[kC][R][P * kV];
  AWQ_UNROLL for (int i = 0; i < kC * R * P * kV; ++i) acc[i / (R * P * kV)][i / (P * kV) % R][i % (P * kV)] =
      V::zero_i();
  for (int32_t b = 0; b < bytes; b += 64, w += 64, x += W::kColumns)
    unroll<P>([&](auto q) AWQ_INLINE_LAMBDA {
      const uint8_t* at = w + q.value * panel;
      __builtin_prefetch(at + kFewAhead);
      typename V::I words[kV];
      AWQ_UNROLL for (int v = 0; v < kV; ++v) words[v] = V::load_words(at + v * (64 / kV));
      unroll<W::kPieces>([&](auto p) AWQ_INLINE_LAMBDA {
        constexpr int c = p.value % kC, first = q.value * kV;
        typename V::I codes[kV];
        AWQ_UNROLL for (int v = 0; v < kV; ++v) codes[v] = W::template piece<p.value>(words[v]);
        AWQ_UNROLL for (int r = 0; r < R; ++r) {
          const typename V::I xs = V::set1(word_at(x + r * x_row + p.value * 4 / int(sizeof(Code))));
          AWQ_UNROLL for (int v = 0; v < kV; ++v) {
            if constexpr (sizeof(Code) == 1)
              acc[c][r][first + v] = V::dot8(acc[c][r][first + v], codes[v], xs);
            else
              acc[c][r][first + v] = V::dot16(acc[c][r][first + v], codes[v], xs);
          }
        }
      });
    });
  AWQ_UNROLL for (int i = 0; i < R * P * kV; ++i) {
    constexpr int kN = P * kV;
    sums[i / kN][i % kN] = acc[0][i / kN][i % kN];
    AWQ_UNROLL for (int j = 1; j < kC; ++j) sums[i / kN][i % kN] =
        V::add_i(sums[i / kN][i % kN], acc[j][i / kN][i % kN]);
  }
}

/// -sum as a pair of int16 that meets (zero, 128 * zero): zero <= 255 and |sum| < 2^22 keep both in range, and a dot
/// product is cheaper than a multiplication of int32.
inline int32_t minus_sum(int32_t sum) { return (-sum & 127) | int32_t(uint32_t(-sum >> 7) << 16); }

/// y[R][P * 16] of P panels.
template <class V, class Code, int Bits, int R, int P>
AWQ_INLINE void few_tile(const PackedInt& w, const ActInt<Code>& x, int32_t panel, float* y, ptrdiff_t y_row) {
  constexpr int kV = V::kVecs, kLane = kPanel / kV;
  const int32_t groups = w.cols / w.group;
  typename V::F out[R][P * kV];
  AWQ_UNROLL for (int i = 0; i < R * P * kV; ++i) out[i / (P * kV)][i % (P * kV)] = V::zero_f();
  const ptrdiff_t next = int_group(w, 1, 0).at - w.stream;
  for (int32_t g = 0; g < groups; ++g) {
    typename V::I sums[R][P * kV];
    few_dot<V, Code, Bits, R, P>(int_group(w, panel, g).at, next, code_bytes(w), x.codes + g * w.group, w.cols, sums);
    AWQ_UNROLL for (int v = 0; v < P * kV; ++v) {
      const IntGroup at = int_group(w, panel + v / kV, g);
      const typename V::F scale = load_scales<V>(at, v % kV);
      const typename V::I zero = V::load_bytes(at.zeros() + v % kV * kLane),
                          zeros = V::or_i(zero, V::template shl<23>(zero));
      AWQ_UNROLL for (int r = 0; r < R; ++r) {
        const int32_t i = r * groups + g;
        const typename V::I d = V::dot16(sums[r][v], zeros, V::set1(minus_sum(x.sums[i])));
        out[r][v] = V::fma(V::mul(scale, V::set1(x.scales[i])), V::to_float(d), out[r][v]);
      }
    }
  }
  AWQ_UNROLL for (int i = 0; i < R * P * kV; ++i)
      V::store(y + i / (P * kV) * y_row + i % (P * kV) * kLane, out[i / (P * kV)][i % (P * kV)]);
}

/// R tokens times panels: P at a time, then one.
template <class V, class Code, int Bits, int R, int P>
void few_rows(const PackedInt& w, const ActInt<Code>& x, float* y, ptrdiff_t y_row, int32_t panel, int32_t panel_end) {
  for (; panel + P <= panel_end && (panel + P) * kPanel <= w.rows; panel += P)
    few_tile<V, Code, Bits, R, P>(w, x, panel, y + panel * kPanel, y_row);
  for (; panel < panel_end; ++panel)
    on_panel<R>(y + panel * kPanel, y_row, min_of<int32_t>(kPanel, w.rows - panel * kPanel),
                [&](float* to, ptrdiff_t row) { few_tile<V, Code, Bits, R, 1>(w, x, panel, to, row); });
}

/// Tokens in equal parts that fit a tile, eight panels at a time so that the next part finds them in the cache.
template <class V, class Code, int Bits>
void int_few(const PackedInt& w, const ActInt<Code>& x, float* y, ptrdiff_t y_row, int32_t panel_begin,
             int32_t panel_end) {
  const int32_t parts = (x.tokens + V::kFewTokens - 1) / V::kFewTokens, groups = w.cols / w.group;
  for (int32_t p = panel_begin; p < panel_end; p += 8)
    for (int32_t i = 0; i < parts; ++i) {
      const int32_t begin = x.tokens * i / parts, end = x.tokens * (i + 1) / parts;
      const ptrdiff_t group = ptrdiff_t(begin) * groups;
      const ActInt<Code> part{
          x.codes + group * w.group, x.scales + group, x.sums + group, end - begin, w.cols, w.group};
      dispatch<V::kFewTokens>(end - begin, [&](auto rows) {
        few_rows<V, Code, Bits, rows.value, few_panels<V>(rows.value)>(w, part, y + begin * y_row, y_row, p,
                                                                       min_of(p + 8, panel_end));
      });
    }
}

// ---- many tokens: each panel's codes are unpacked once for a block of tokens, zero points subtracted ----

/// Codes of one group less their zero points: [columns / columns of a piece][16] pieces, or for dot_pairs, a piece and
/// the next one together: [columns / 8][16][2].
template <class V, class Code, int Bits>
AWQ_INLINE void unpack(const IntGroup& w, int32_t* out) {
  using W = WordPieces<V, Code, Bits>;
  constexpr int kV = V::kVecs, kLane = kPanel / kV;
  AWQ_UNROLL for (int v = 0; v < kV; ++v) {
    const typename V::I zero = V::load_bytes(w.zeros() + v * kLane), pair = V::or_i(zero, V::template shl<16>(zero)),
                        zeros = sizeof(Code) == 1 ? V::or_i(pair, V::template shl<8>(pair)) : pair;
    for (int32_t b = 0; b < w.code_bytes; b += 64) {
      const typename V::I words = V::load_words(w.at + b + v * (64 / kV));
      int32_t* to = out + b / 64 * W::kPieces * kPanel + v * kLane;
      if constexpr (V::kByteDot == ByteDot::kPairs && sizeof(Code) == 1) {
        const typename V::I first = V::sub8(W::template piece<0>(words), zeros),
                            second = V::sub8(W::template piece<1>(words), zeros);
        V::store(to + v * kLane, V::zip_low32(first, second));
        V::store(to + (v + 1) * kLane, V::zip_high32(first, second));
        continue;
      }
      unroll<W::kPieces>([&](auto p) AWQ_INLINE_LAMBDA {
        const typename V::I codes = W::template piece<p.value>(words);
        V::store(to + p.value * kPanel, sizeof(Code) == 1 ? V::sub8(codes, zeros) : V::sub16(codes, zeros));
      });
    }
  }
}

inline constexpr int32_t kIntBlockM = 72;  // tokens: their codes pass through the first-level cache once a panel

/// Some groups of columns and a block of tokens. Where dot8 wants them unsigned, 8-bit codes of activations are moved
/// to 0 .. 255, and every sum begins at -128 times the sum of its weights.
template <class V, class Code, int Bits>
class IntBlock {
 public:
  static constexpr int32_t kRow = V::kIntBlockBytes, kBlockK = kRow / int32_t(sizeof(Code));

  IntBlock(const PackedInt& w, const ActInt<Code>& x, float* y, ptrdiff_t y_row) : w_(w), x_(x), y_(y), y_row_(y_row) {}

  void run(int32_t g0, int32_t groups, int32_t t0, int32_t tokens, int32_t panel_begin, int32_t panel_end) {
    g0_ = g0, groups_ = groups, tokens_ = tokens;
    copy_activations(t0);
    float* y = y_ + t0 * y_row_;
    int32_t p = panel_begin;
    for (; p + kP <= panel_end && (p + kP) * kPanel <= w_.rows; p += kP) panels<kP>(p, y + p * kPanel, kPanel);
    for (; p < panel_end; ++p) panels<1>(p, y + p * kPanel, min_of<int32_t>(kPanel, w_.rows - p * kPanel));
  }

 private:
  using I = typename V::I;
  using F = typename V::F;
  static constexpr int kV = V::kVecs, kLane = kPanel / kV, kP = V::kIntPanels, kMaxGroups = kBlockK / 8;
  static constexpr bool kBytes = sizeof(Code) == 1, kMoved = kBytes && V::kByteDot == ByteDot::kUnsigned,
                        kPairs = kBytes && V::kByteDot == ByteDot::kPairs;

  void copy_activations(int32_t t0) {
    const int32_t all = w_.cols / w_.group, bytes = groups_ * w_.group * int32_t(sizeof(Code));
    for (int32_t t = 0; t < tokens_; ++t) {
      const ptrdiff_t from = ptrdiff_t(t0 + t) * all + g0_;
      uint8_t* to = codes_ + t * kRow;
      __builtin_memcpy(to, x_.codes + from * w_.group, size_t(bytes));
      for (int32_t i = 0; kMoved && i < bytes; ++i) to[i] ^= 0x80;
      __builtin_memcpy(scales_ + t * kMaxGroups, x_.scales + from, size_t(groups_) * sizeof(float));
    }
  }

  int32_t* pieces(int32_t panel, int32_t group) {
    return pieces_ + (panel * kBlockK + group * w_.group) * int32_t(sizeof(Code)) / 4 * kPanel;
  }

  void start(const int32_t* pieces, int32_t* out) {
    for (int v = 0; v < kV; ++v) {
      I sum = V::zero_i();
      for (int32_t i = 0; i < w_.group / 4; ++i)
        sum = V::dot8(sum, V::set1(int32_t(0x80808080)), V::load(pieces + i * kPanel + v * kLane));
      V::store(out + v * kLane, V::sub_i(V::zero_i(), sum));
    }
  }

  template <int P>
  void panels(int32_t panel, float* y, int32_t n) {
    for (int32_t p = 0; p < P; ++p)
      for (int32_t g = 0; g < groups_; ++g) {
        const IntGroup group = int_group(w_, panel + p, g0_ + g);
        unpack<V, Code, Bits>(group, pieces(p, g));
        for (int v = 0; v < kV; ++v)
          V::store(weight_scales_ + (g * kP + p) * kPanel + v * kLane, load_scales<V>(group, v));
        if constexpr (kMoved) start(pieces(p, g), starts_ + (g * kP + p) * kPanel);
      }
    for (int32_t t = 0; t < tokens_; t += V::kIntTokens)
      dispatch<V::kIntTokens>(min_of<int32_t>(V::kIntTokens, tokens_ - t), [&](auto rows) {
        on_panel<rows.value>(y + t * y_row_, y_row_, n,
                             [&](float* to, ptrdiff_t row) { tile<rows.value, P>(t, to, row); });
      });
  }

  /// Sums of one group, acc[R][P * kV].
  template <int R, int P>
  AWQ_INLINE void dot(int32_t t, int32_t g, I (&acc)[R][P * kV]) {
    unroll<P * kV>([&](auto v) AWQ_INLINE_LAMBDA {
      const I first = kMoved ? V::load(starts_ + g * kP * kPanel + v.value * kLane) : V::zero_i();
      unroll<R>([&](auto r) AWQ_INLINE_LAMBDA { acc[r.value][v.value] = first; });
    });
    const uint8_t* x = codes_ + t * kRow + g * w_.group * int32_t(sizeof(Code));
    const int32_t* w = pieces(0, g);
    constexpr int32_t kNext = kBlockK * int32_t(sizeof(Code)) / 4 * kPanel;
    for (int32_t i = w_.group * int32_t(sizeof(Code)) / 4; i > 0; --i, w += kPanel, x += 4) {
      I codes[P * kV];
      unroll<P * kV>(
          [&](auto v) AWQ_INLINE_LAMBDA { codes[v.value] = V::load(w + v.value / kV * kNext + v.value % kV * kLane); });
      unroll<R>([&](auto r) AWQ_INLINE_LAMBDA {
        const I xs = V::set1(word_at(x + r.value * kRow));
        unroll<P * kV>([&](auto v) AWQ_INLINE_LAMBDA {
          if constexpr (kBytes)
            acc[r.value][v.value] = V::dot8(acc[r.value][v.value], xs, codes[v.value]);
          else
            acc[r.value][v.value] = V::dot16(acc[r.value][v.value], xs, codes[v.value]);
        });
      });
    }
  }

  /// The same by dot_pairs; a lone last token is computed twice.
  template <int R>
  AWQ_INLINE void dot_pairs(int32_t t, int32_t g, I (&acc)[R][kV]) {
    constexpr int kTwos = (R + 1) / 2;
    I sums[kTwos][2 * kV];
    unroll<kTwos * 2 * kV>([&](auto i)
                               AWQ_INLINE_LAMBDA { sums[i.value / (2 * kV)][i.value % (2 * kV)] = V::zero_i(); });
    const uint8_t* x = codes_ + t * kRow + g * w_.group;
    const int32_t* w = pieces(0, g);
    for (int32_t i = w_.group / 8; i > 0; --i, w += 2 * kPanel, x += 8) {
      I xs[kTwos];
      unroll<kTwos>([&](auto r) AWQ_INLINE_LAMBDA {
        xs[r.value] = V::two_rows(x + 2 * r.value * kRow, x + min_of(2 * r.value + 1, R - 1) * kRow);
      });
      unroll<2 * kV>([&](auto v) AWQ_INLINE_LAMBDA {
        const I codes = V::load(w + v.value * kLane);
        unroll<kTwos>([&](auto r) AWQ_INLINE_LAMBDA {
          sums[r.value][v.value] = V::dot_pairs(sums[r.value][v.value], xs[r.value], codes);
        });
      });
    }
    unroll<R * kV>([&](auto i) AWQ_INLINE_LAMBDA {
      constexpr int r = i.value / kV, v = i.value % kV;
      const I a = sums[r / 2][2 * v], b = sums[r / 2][2 * v + 1];
      acc[r][v] = r % 2 ? V::zip_high64(a, b) : V::zip_low64(a, b);
    });
  }

  template <int R, int P>
  AWQ_INLINE void tile(int32_t t, float* y, ptrdiff_t y_row) {
    // In memory: all registers hold integer sums.
    alignas(64) float out[R][P * kPanel];
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < P * kV; ++v)
        V::store(out[r] + v * kLane, g0_ ? V::load(y + r * y_row + v * kLane) : V::zero_f());
    for (int32_t g = 0; g < groups_; ++g) {
      I acc[R][P * kV];
      if constexpr (kPairs)
        dot_pairs<R>(t, g, acc);
      else
        dot<R, P>(t, g, acc);
      unroll<P * kV>([&](auto v) AWQ_INLINE_LAMBDA {
        const F scale = V::load(weight_scales_ + g * kP * kPanel + v.value * kLane);
        unroll<R>([&](auto r) AWQ_INLINE_LAMBDA {
          float* to = out[r.value] + v.value * kLane;
          const F scales = V::mul(scale, V::set1(scales_[(t + r.value) * kMaxGroups + g]));
          V::store(to, V::fma(scales, V::to_float(acc[r.value][v.value]), V::load(to)));
        });
      });
    }
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < P * kV; ++v) V::store(y + r * y_row + v * kLane, V::load(out[r] + v * kLane));
  }

  const PackedInt& w_;
  const ActInt<Code>& x_;
  float* y_;
  ptrdiff_t y_row_;
  int32_t g0_ = 0, groups_ = 0, tokens_ = 0;
  alignas(64) uint8_t codes_[kIntBlockM * kRow];
  alignas(64) int32_t pieces_[kP * kRow / 4 * kPanel];
  alignas(64) float weight_scales_[kP * kMaxGroups * kPanel];
  alignas(64) int32_t starts_[kMoved ? kP * kMaxGroups * kPanel : kPanel];
  float scales_[kIntBlockM * kMaxGroups];
};

template <class V, class Code, int Bits>
void int_many(const PackedInt& w, const ActInt<Code>& x, float* y, ptrdiff_t y_row, int32_t panel_begin,
              int32_t panel_end) {
  using Block = IntBlock<V, Code, Bits>;
  Block block(w, x, y, y_row);
  const int32_t groups = w.cols / w.group, step = Block::kBlockK / w.group;
  for (int32_t t = 0; t < x.tokens; t += kIntBlockM)
    for (int32_t g = 0; g < groups; g += step)
      block.run(g, min_of(step, groups - g), t, min_of<int32_t>(kIntBlockM, x.tokens - t), panel_begin, panel_end);
}

template <class V, class Code, int Bits>
void int_product(const PackedInt& w, const ActInt<Code>& x, float* y, ptrdiff_t y_row, int32_t panel_begin,
                 int32_t panel_end) {
  (x.tokens <= V::kIntFew ? int_few<V, Code, Bits> : int_many<V, Code, Bits>)(w, x, y, y_row, panel_begin, panel_end);
}

template <class V>
void matmul_i16(const PackedInt& w, const ActI16& x, float* y, ptrdiff_t y_row, int32_t panel_begin,
                int32_t panel_end) {
  (w.bits == 8 ? int_product<V, int16_t, 8> : int_product<V, int16_t, 4>)(w, x, y, y_row, panel_begin, panel_end);
}
template <class V>
void matmul_i8(const PackedInt& w, const ActI8& x, float* y, ptrdiff_t y_row, int32_t panel_begin, int32_t panel_end) {
  int_product<V, int8_t, 4>(w, x, y, y_row, panel_begin, panel_end);
}

}  // namespace
}  // namespace awq::kernels
