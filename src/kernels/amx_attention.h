#pragma once
// Attention to a page of bfloat16 on tiles. Queries and weights are pairs of bfloat16, high + low, 2^-18 of them; keys
// and values are tiles as they lie in the page. 16 rows are a tile, two of them meet two panels at a time.
#include "kernels/amx_tiles.h"
#include "kernels/attention.h"

namespace awq::kernels {
namespace {

constexpr int32_t kPairK = 32;          // channels or positions of a tile
constexpr int32_t kTilesDim = kKvPage;  // the widest heads: a row of scores has room for the outputs too

class TileAttention : private PageAttention<Avx512, Bf16> {
 public:
  explicit TileAttention(const AttentionStep& s) : PageAttention(s) {}

  static bool takes(const AttentionStep& s) {
    return s.dim % kPairK == 0 && s.dim <= kTilesDim && s.value_dim <= kTilesDim;
  }

  /// Rows are independent: each has the bits that it has alone. 170 kB of stack.
  void run() {
    for (int32_t r = 0; r < s_.rows; r += 2 * kTileRows)
      if (!values_are_finite(rows_at(r))) return one_by_one();
    configure_tiles(min_of<int32_t>(s_.rows, kTileRows));
    for (int32_t r = 0; r < s_.rows; r += 2 * kTileRows) score(rows_at(r));
    for (int32_t r = 0; r < s_.rows; ++r) weigh(r);
    for (int32_t r = 0; r < s_.rows; r += 2 * kTileRows) sum(rows_at(r));
    _tile_release();
    leave_unseen();
  }

 private:
  enum : int32_t { kElements = kTileRows * kPairK };  // of a tile
  /// Up to two tiles of rows, and the blocks of 32 positions that any of them sees.
  struct Rows {
    int32_t first, count;
    Span any, blocks;
    int32_t tiles() const { return count > kTileRows ? 2 : 1; }
  };
  Rows rows_at(int32_t r) const {
    const int32_t n = min_of<int32_t>(2 * kTileRows, s_.rows - r);
    Span any{kKvPage, 0};
    for (int32_t i = r; i < r + n; ++i)
      if (!seen(i, 1).empty()) any = {min_of(any.begin, s_.first[i]), max_of(any.end, s_.last[i])};
    if (any.empty()) any = {0, 0};
    return {r, n, any, {any.begin / kPairK, (any.end + kPairK - 1) / kPairK}};
  }

  const Bf16* values_at(int32_t panel, int32_t block) const { return values_ + panel * kSpan + block * kElements; }

  /// Rows that do not see the same positions do not share a tile with a value that is no number.
  void one_by_one() const {
    for (int32_t r = 0; r < s_.rows; ++r) {
      AttentionStep one = s_;
      one.q += r * s_.dim, one.first += r, one.last += r, one.rows = 1;
      one.to = {s_.to.max + r, s_.to.sum + r, s_.to.out + r * s_.value_dim};
      if (s_.slopes) one.slopes += r, one.query += r;
      TileAttention(one).run();
    }
  }

  /// A weight of 0 would let a NaN through. Only where some rows see a position and others do not is that a matter:
  /// what no row sees is set to 0.
  bool values_are_finite(const Rows& rows) const {
    if (s_.rows == 1) return true;
    const Span all = shared(rows.first, rows.count);
    for (int32_t b = rows.blocks.begin; b < rows.blocks.end; ++b) {
      if (all.begin <= b * kPairK && (b + 1) * kPairK <= all.end) continue;
      for (int32_t p = 0; p < s_.value_dim / kPanel; ++p)
        for (int32_t at = 0; at < kPairK; at += 2)
          if (!finite(seen_unit(values_at(p, b) + at / 2 * kKvUnit, b * kPairK + at, rows.any))) return false;
    }
    return true;
  }
  static bool finite(__m512i unit) {
    const __m512i exponent = _mm512_set1_epi16(0x7f80);
    return !_mm512_cmpeq_epi16_mask(_mm512_and_si512(unit, exponent), exponent);
  }
  /// Two positions of 16 channels, 0 for what is not in `any`.
  static __m512i seen_unit(const Bf16* unit, int32_t position, Span any) {
    const auto in = [&](int32_t at) { return any.begin <= at && at < any.end; };
    const uint32_t mask = (in(position) ? 0xffffu : 0) | (in(position + 1) ? 0xffff0000u : 0);
    return _mm512_and_si512(_mm512_loadu_si512(unit), _mm512_set1_epi32(int(mask)));
  }

  /// Columns [begin, end) of x, queries or weights, [count][x_row] as pairs: [tile of rows][32 columns][high,
  /// low][16][32]; rows beyond are 0.
  void split(const Rows& rows, const float* x, ptrdiff_t x_row, int32_t begin, int32_t end) {
    for (int32_t k = begin; k < end; k += kPairK)
      for (int32_t r = 0; r < rows.tiles() * kTileRows; ++r) {
        uint16_t* to = left_[r / kTileRows] + (k - begin) / kPairK * 2 * kElements + r % kTileRows * kPairK;
        r < rows.count ? split(x + r * x_row + k, to) : split(kZeros, to);
      }
    tile_fence();
  }
  static void split(const float* x, uint16_t* to) {
    __m512i high, low;
    split_pairs(x, high, low);
    _mm512_store_si512(to, high);
    _mm512_store_si512(to + kElements, low);
  }

  void score(const Rows& rows) {
    if (rows.any.empty()) return;
    split(rows, s_.q + rows.first * s_.dim, s_.dim, 0, s_.dim);
    const ptrdiff_t width = ptrdiff_t(s_.dim) * kPanel;
    const Span panels{rows.any.begin / kPanel, (rows.any.end + kPanel - 1) / kPanel};
    const Bf16* values = values_at(0, 0);
    products(rows, panels, s_.dim / kPairK, [&](int32_t panel, int32_t step) {
      const Bf16* tile = keys_ + panel * width + step * kElements;
      prefetch(tile + 2 * width);
      if (rows.first == 0) prefetch(values), values += kElements;
      return tile;
    });
  }

  void sum(const Rows& rows) {
    if (rows.any.empty()) return;
    for (int32_t r = rows.first; r < rows.first + rows.count; ++r) clear_unseen(r, rows.blocks);
    const int32_t begin = rows.blocks.begin, last = rows.blocks.end - 1, panels = s_.value_dim / kPanel;
    split(rows, scores_ + rows.first * kScoreRow, kScoreRow, begin * kPairK, (last + 1) * kPairK);
    const int32_t first_cut = rows.any.begin % kPairK ? begin : -1, last_cut = rows.any.end % kPairK ? last : -1;
    copy_cut(first_cut, rows.any, ends_[0]);
    copy_cut(last_cut, rows.any, ends_[1]);
    products(rows, {0, panels}, last + 1 - begin, [&](int32_t panel, int32_t step) -> const Bf16* {
      const int32_t block = begin + step;
      if (block == first_cut) return ends_[0] + panel * kElements;
      return block == last_cut ? ends_[1] + panel * kElements : values_at(panel, block);
    });
    for (int32_t r = rows.first; r < rows.first + rows.count; ++r)
      __builtin_memcpy(s_.to.out + r * s_.value_dim, scores_ + r * kScoreRow, size_t(s_.value_dim) * sizeof(float));
  }
  /// Weights of positions that other rows see; weigh() left whole panels.
  void clear_unseen(int32_t r, Span blocks) {
    const Span s = seen(r, 1);
    const int32_t begin = s.empty() ? kKvPage : s.begin / kPanel * kPanel,
                  end = s.empty() ? kKvPage : (s.end + kPanel - 1) / kPanel * kPanel;
    float* x = scores_ + r * kScoreRow;
    for (int32_t i = blocks.begin * kPairK; i < blocks.end * kPairK; i += kPanel)
      if (i < begin || i >= end) _mm512_store_ps(x + i, _mm512_setzero_ps());
  }
  /// A block that ends before or begins behind what any row sees.
  void copy_cut(int32_t block, Span any, Bf16* to) const {
    for (int32_t p = 0; block >= 0 && p < s_.value_dim / kPanel; ++p)
      for (int32_t at = 0; at < kPairK; at += 2) {
        const int32_t unit = at / 2 * kKvUnit;
        _mm512_store_si512(to + p * kElements + unit, seen_unit(values_at(p, block) + unit, block * kPairK + at, any));
      }
    tile_fence();
  }

  /// Tiles are loaded one after another, too late for memory to be busy.
  static void prefetch(const Bf16* tile) {
    for (int32_t i = 0; i < kElements; i += kPairK) __builtin_prefetch(tile + i);
  }

  /// scores_[row][16 panel ...] = sum over steps of the rows' pairs times right(panel, step), a tile.
  template <class Right>
  void products(const Rows& rows, Span panels, int32_t steps, const Right& right) {
    for (int32_t p = panels.begin; p < panels.end; p += 2) {
      const bool two = p + 1 < panels.end;
      float* to = scores_ + rows.first * kScoreRow + p * kPanel;
      if (rows.tiles() == 2)
        two ? product<2, 2>(p, steps, right, to) : product<2, 1>(p, steps, right, to);
      else
        two ? product<1, 2>(p, steps, right, to) : product<1, 1>(p, steps, right, to);
    }
    tile_fence();
  }

  /// Sums of row tile r and panel p are in tile 2 r + p.
  template <int R, int P, class Right>
  void product(int32_t panel, int32_t steps, const Right& right, float* to) const {
    _tile_zero(0);
    if constexpr (P > 1) _tile_zero(1);
    if constexpr (R > 1) _tile_zero(2);
    if constexpr (R > 1 && P > 1) _tile_zero(3);
    for (int32_t s = 0; s < steps; ++s) {
      _tile_loadd(6, right(panel, s), kRowBytes);
      if constexpr (P > 1) _tile_loadd(7, right(panel + 1, s), kRowBytes);
      for (int32_t part = 0; part < 2; ++part) add<R, P>((2 * s + part) * kElements);
    }
    constexpr ptrdiff_t kRow = kScoreRow * ptrdiff_t(sizeof(float));
    float* next = to + kTileRows * kScoreRow;
    _tile_stored(0, to, kRow);
    if constexpr (P > 1) _tile_stored(1, to + kPanel, kRow);
    if constexpr (R > 1) _tile_stored(2, next, kRow);
    if constexpr (R > 1 && P > 1) _tile_stored(3, next + kPanel, kRow);
  }
  template <int R, int P>
  void add(ptrdiff_t at) const {
    _tile_loadd(4, left_[0] + at, kRowBytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (P > 1) _tile_dpbf16ps(1, 4, 7);
    if constexpr (R > 1) {
      _tile_loadd(5, left_[1] + at, kRowBytes);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (P > 1) _tile_dpbf16ps(3, 5, 7);
    }
  }

  static constexpr float kZeros[kPairK] = {};
  alignas(64) uint16_t left_[2][2 * kTileRows * kTilesDim];
  alignas(64) Bf16 ends_[2][kPairK * kTilesDim];
};

void attend_on_tiles(const AttentionStep& s) {
  TileAttention::takes(s) ? TileAttention(s).run() : attend<Avx512, Bf16>(s);
}

}  // namespace
}  // namespace awq::kernels
