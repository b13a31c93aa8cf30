#pragma once
// Products of bfloat16 on tiles: 16 tokens by a panel over 32 columns, sums in float that stay in their tiles for a
// block of columns.
#include "kernels/amx_tiles.h"

namespace awq::kernels {
namespace {

constexpr int32_t kBfTileK = 32;
constexpr int32_t kBfBlockK = kTileColumns;  // a pair of panels is 32 kB, which stays in the first-level cache
constexpr int32_t kBfUnits = 16;             // of two tiles of activations: 512 kB a block, in the second-level cache
constexpr int32_t kBfPanels = 16;            // with 512 kB of sums

/// Elements of two columns, [2][16], as pairs: [16][2].
inline __m512i pairs_of(__m512i columns) {
  alignas(64) static constexpr struct Order {
    uint16_t at[32];
    constexpr Order() : at() {
      for (int i = 0; i < 32; ++i) at[i] = uint16_t(i / 2 + i % 2 * 16);
    }
  } kOrder;
  return _mm512_permutexvar_epi16(_mm512_load_si512(kOrder.at), columns);
}

/// Tiles of weights: columns [k, k + n) of a panel as kParts (1, if activations are no pairs) of [n / 2][16 rows][2].
struct Bf16Weights {
  static constexpr int32_t kParts = 1;
  const uint16_t* panels;
  int32_t rows, cols;

  const void* at(int32_t panel, int32_t k) const { return panels + (ptrdiff_t(panel) * cols + k) * kPanel; }
  void fill(int32_t panel, int32_t k, int32_t n, uint16_t* to, bool) const {
    const auto* from = static_cast<const uint16_t*>(at(panel, k));
    for (int32_t i = 0; i < n * kPanel; i += 32) _mm512_store_si512(to + i, pairs_of(_mm512_loadu_si512(from + i)));
  }
};

/// The eleven bits of a float16 are a high and a low bfloat16, exactly.
struct F16Weights {
  static constexpr int32_t kParts = 2;
  const uint16_t* panels;
  int32_t rows, cols;

  const void* at(int32_t panel, int32_t k) const { return panels + (ptrdiff_t(panel) * cols + k) * kPanel; }
  void fill(int32_t panel, int32_t k, int32_t n, uint16_t* to, bool pairs) const {
    const auto* from = static_cast<const F16*>(at(panel, k));
    for (int32_t i = 0; i < n * kPanel; i += 32) {
      const __m512 first = Avx512::load(from + i), second = Avx512::load(from + i + 16);
      if (pairs)
        split(first, second, to + i, to + n * kPanel + i);
      else
        _mm512_store_si512(to + i, pairs_of(to_bf16(first, second)));
    }
  }

 private:
  static __m512 upper(__m512i v) { return _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32(int(kUpper)))); }
  /// The upper halves of both, the first one's below.
  static __m512i join(__m512i first, __m512i second) {
    constexpr int kSelect = 0xca;  // a ? b : c
    return _mm512_ternarylogic_epi32(_mm512_set1_epi32(int(kUpper)), second, _mm512_srli_epi32(first, 16), kSelect);
  }
  /// High is rounded by an addition to the bits. That may turn a NaN into a number, and low is NaN then.
  static void split(__m512 first, __m512 second, uint16_t* high, uint16_t* low) {
    const __m512i half = _mm512_set1_epi32(0x8000), r1 = _mm512_add_epi32(_mm512_castps_si512(first), half),
                  r2 = _mm512_add_epi32(_mm512_castps_si512(second), half);
    _mm512_store_si512(high, join(r1, r2));
    const auto rest = [](__m512 v, __m512i rounded) { return _mm512_castps_si512(_mm512_sub_ps(v, upper(rounded))); };
    _mm512_store_si512(low, join(rest(first, r1), rest(second, r2)));
  }
  static constexpr uint32_t kUpper = 0xffff0000;
};

struct IntWeights {
  static constexpr int32_t kParts = 1;
  const PackedInt& w;
  int32_t rows = w.rows, cols = w.cols;

  const void* at(int32_t panel, int32_t k) const { return int_group(w, panel, k / w.group).at; }
  void fill(int32_t panel, int32_t k, int32_t n, uint16_t* to, bool) const {
    for (int32_t i = 0; i < n; i += w.group) {
      const IntGroup group = int_group(w, panel, (k + i) / w.group);
      w.bits == 8 ? decode<8>(group, to + i * kPanel) : decode<4>(group, to + i * kPanel);
    }
  }

 private:
  /// (code - zero) * scale. A code becomes the float 2^bits + code by its bits alone, and 2^bits + zero is taken off in
  /// the multiplication, which for 16-bit scales is exact before it is rounded.
  template <int Bits>
  static void decode(const IntGroup& g, uint16_t* to) {
    const __m512 scale = load_scales<Avx512>(g, 0),
                 zero = _mm512_add_ps(Avx512::to_float(Avx512::load_bytes(g.zeros())), _mm512_set1_ps(1 << Bits)),
                 offset = _mm512_mul_ps(zero, scale);
    for (int32_t b = 0; b < g.code_bytes; b += 64, to += 32 / Bits * kPanel) {
      const __m512i words = Avx512::load_words(g.at + b);
      unroll<16 / Bits>([&](auto pair) AWQ_INLINE_LAMBDA {
        constexpr int p = pair.value, low = Bits == 8 ? 8 * p : 8 * (p % 2) + 4 * (p / 2);
        const __m512 first = _mm512_fmsub_ps(code<Bits, low>(words), scale, offset),
                     second = _mm512_fmsub_ps(code<Bits, low + 16>(words), scale, offset);
        _mm512_store_si512(to + p * 32, pairs_of(to_bf16(first, second)));
      });
    }
  }
  /// 2^Bits + the code at bit Low of each word.
  template <int Bits, int Low>
  static AWQ_INLINE __m512 code(__m512i words) {
    constexpr int kPlace = 23 - Bits;  // the highest bits of a float's fraction
    if constexpr (Low < kPlace)
      words = _mm512_slli_epi32(words, kPlace - Low);
    else
      words = _mm512_srli_epi32(words, Low - kPlace);
    constexpr int kAndOr = 0xea;
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(words, _mm512_set1_epi32(((1 << Bits) - 1) << kPlace),
                                                         _mm512_set1_epi32((127 + Bits) << 23), kAndOr));
  }
};

/// Where 32 columns of a token lie: [block of columns][unit][its columns / 32][2][16][32], a unit being two tiles,
/// either of 32 tokens or, of pairs, the high and the low parts of 16. Were a unit's columns all together, blocks of
/// several units would share a few sets of the cache.
inline uint16_t* tile_row(const ActBf16& x, int32_t token, int32_t k) {
  const int32_t unit = x.pairs ? kTileRows : 2 * kTileRows, units = (x.tokens + unit - 1) / unit,
                block = k / kBfBlockK * kBfBlockK, steps = min_of(kBfBlockK, x.cols - block) / kBfTileK;
  const ptrdiff_t step = ptrdiff_t(units) * (block / kBfTileK) + token / unit * steps + (k - block) / kBfTileK;
  return x.values + ((step * 2 + token % unit / kTileRows) * kTileRows + token % kTileRows) * kBfTileK;
}

void split_bf16(const float* x, const ActBf16& to, int32_t begin, int32_t end, int32_t first_col, int32_t last_col) {
  for (int32_t t = begin; t < end; ++t)
    for (int32_t k = first_col; k < last_col; k += kBfTileK) {
      uint16_t* row = tile_row(to, t, k);
      __m512i high, low;
      split_pairs(x + ptrdiff_t(t) * to.cols + k, high, low);
      _mm512_storeu_si512(row, high);
      if (to.pairs) _mm512_storeu_si512(row + kTileBytes / 2, low);
    }
}

/// A block of units of tokens times a chunk of panels.
template <class Weights>
class Bf16Chunk {
 public:
  Bf16Chunk(const Weights& w, const ActBf16& x, float* y, ptrdiff_t y_row, int32_t first, int32_t last)
      : w_(w), x_(x), y_(y), y_row_(y_row), unit_(x.pairs ? kTileRows : 2 * kTileRows), first_(first), last_(last) {}

  void run(int32_t unit, int32_t panel, int32_t panels) {
    unit0_ = unit, panel0_ = panel;
    const int32_t units = min_of<int32_t>(kBfUnits, (x_.tokens + unit_ - 1) / unit_ - unit);
    for (k_ = first_; k_ < last_; k_ += kBlockK) {
      n_ = min_of<int32_t>(kBlockK, last_ - k_);
      for (int32_t p = 0; p < panels; p += 2) {
        for (int32_t j = 0; j < min_of(2, panels - p); ++j) w_.fill(panel + p + j, k_, n_, b_[j], x_.pairs);
        tile_fence();
        for (int32_t u = 0; u < units; ++u) {
          if (p + 2 < panels) prefetch(panel + p + 2, u, units);
          multiply(u, sums_[p / 2][u]);
        }
      }
    }
    store_second();
    tile_fence();
    const int32_t first = unit * unit_, end = min_of(first + block(), x_.tokens);
    for (int32_t t = first; t < end; ++t) write(t, panels);
  }
  int32_t block() const { return kBfUnits * unit_; }

 private:
  static constexpr int32_t kBlockK = kBfBlockK / Weights::kParts;

  /// The part of a unit in asking for the next pair of panels: all at once would wait for each other.
  void prefetch(int32_t panel, int32_t u, int32_t units) const {
    for (int32_t p = panel; p < panel + 2; ++p) {
      const char *begin = static_cast<const char*>(w_.at(p, k_)), *end = static_cast<const char*>(w_.at(p, k_ + n_));
      const ptrdiff_t step = ((end - begin) / units / 64 + 1) * 64;
      for (ptrdiff_t i = u * step; i < min_of((u + 1) * step, end - begin); i += 64)
        __builtin_prefetch(begin + i, 0, 2);
    }
  }

  /// sums [4][16][16]: of the first tile of activations with both panels, and of the second. Sums of the second panel
  /// leave their tiles while those of the next unit's first are computed. Activations pass by the first-level cache,
  /// where the weights stay.
  void multiply(int32_t unit, float* sums) {
    const uint16_t *a = tile_row(x_, (unit0_ + unit) * unit_, k_), *b = b_[0];
    for (int32_t k = 0; k < n_; k += kBfTileK, a += kTileBytes, b += kTileBytes / 2) {
      _tile_stream_loadd(4, a, kRowBytes);
      _tile_loadd(6, b, kRowBytes);
      _tile_stream_loadd(5, a + kTileBytes / 2, kRowBytes);
      if (k == 0) start_first(sums);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(2, 5, 6);
      _tile_loadd(7, b + kBfBlockK * kPanel, kRowBytes);
      if (k == 0) start_second(sums);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
      if constexpr (Weights::kParts == 2)
        if (x_.pairs) multiply_low(b + n_ * kPanel);
    }
    _tile_stored(0, sums, kRowBytes);
    _tile_stored(2, sums + 512, kRowBytes);
    pending_ = sums;
  }

  /// The low parts of weights meet the high ones of activations: low times low is 2^-18 of the product.
  void multiply_low(const uint16_t* b) const {
    _tile_loadd(6, b, kRowBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + kBfBlockK * kPanel, kRowBytes);
    _tile_dpbf16ps(1, 4, 7);
  }

  void start_first(const float* sums) const {
    if (k_ == first_) {
      _tile_zero(0);
      _tile_zero(2);
    } else {
      _tile_loadd(0, sums, kRowBytes);
      _tile_loadd(2, sums + 512, kRowBytes);
    }
  }
  void start_second(const float* sums) {
    store_second();
    if (k_ == first_) {
      _tile_zero(1);
      _tile_zero(3);
    } else {
      _tile_loadd(1, sums + 256, kRowBytes);
      _tile_loadd(3, sums + 768, kRowBytes);
    }
  }
  void store_second() {
    if (!pending_) return;
    _tile_stored(1, pending_ + 256, kRowBytes);
    _tile_stored(3, pending_ + 768, kRowBytes);
    pending_ = nullptr;
  }

  void write(int32_t token, int32_t panels) const {
    const int32_t t = token - unit0_ * unit_, row = panel0_ * kPanel;
    const float* from = sums_[0][t / unit_] + t % unit_ / kTileRows * 512 + t % kTileRows * kPanel;
    float* to = y_ + token * y_row_ + row;
    for (int32_t p = 0; p < panels; ++p) {
      const float* at = from + p / 2 * kBfUnits * 1024 + p % 2 * 256;
      __m512 sum = _mm512_load_ps(at);
      if (x_.pairs) sum = _mm512_add_ps(sum, _mm512_load_ps(at + 512));
      const int32_t rows = min_of<int32_t>(kPanel, w_.rows - row - p * kPanel);
      _mm512_mask_storeu_ps(to + p * kPanel, __mmask16((1 << rows) - 1), sum);
    }
  }

  const Weights& w_;
  const ActBf16& x_;
  float* y_;
  ptrdiff_t y_row_;
  const int32_t unit_, first_, last_;
  int32_t unit0_ = 0, panel0_ = 0, k_ = 0, n_ = 0;
  float* pending_ = nullptr;
  alignas(64) uint16_t b_[2][kBfBlockK * kPanel];
  alignas(64) float sums_[kBfPanels / 2][kBfUnits][4 * 256];
};

template <class Weights>
void tile_product(const Weights& w, const ActBf16& x, float* y, ptrdiff_t y_row, int32_t panel_begin, int32_t panel_end,
                  int32_t first, int32_t last) {
  Bf16Chunk<Weights> chunk(w, x, y, y_row, first, last);
  configure_tiles(min_of<int32_t>(x.tokens, kTileRows));
  for (int32_t t = 0; t < x.tokens; t += chunk.block())
    for (int32_t p = panel_begin; p < panel_end; p += kBfPanels)
      chunk.run(t / chunk.block() * kBfUnits, p, min_of<int32_t>(kBfPanels, panel_end - p));
  _tile_release();
}

void tiles_bf16(const uint16_t* panels, int32_t rows, const ActBf16& x, float* y, ptrdiff_t y_row, int32_t panel_begin,
                int32_t panel_end, int32_t first, int32_t last) {
  tile_product(Bf16Weights{panels, rows, x.cols}, x, y, y_row, panel_begin, panel_end, first, last);
}
void tiles_f16(const uint16_t* panels, int32_t rows, const ActBf16& x, float* y, ptrdiff_t y_row, int32_t panel_begin,
               int32_t panel_end, int32_t first, int32_t last) {
  tile_product(F16Weights{panels, rows, x.cols}, x, y, y_row, panel_begin, panel_end, first, last);
}
void tiles_int(const PackedInt& w, const ActBf16& x, float* y, ptrdiff_t y_row, int32_t panel_begin,
               int32_t panel_end) {
  tile_product(IntWeights{w}, x, y, y_row, panel_begin, panel_end, 0, x.cols);
}

}  // namespace
}  // namespace awq::kernels
