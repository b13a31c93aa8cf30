// AMX for many tokens and for attention to bfloat16, AVX-512 for the rest. A tile product multiplies 16 tokens by a
// panel over 64 columns of int8. Activations of 16 bits are two bytes, x = 256 * high + low, each with a tile of its
// own: both products are exact, so that the results are those of every other set, bit for bit.
#include "kernels/amx_attention.h"
#include "kernels/amx_bf16.h"
#include "kernels/amx_tiles.h"

namespace awq::kernels {
namespace {

enum : int32_t {
  kTileK = 64,
  kAmxBlockK = 256,   // columns, and
  kChunkTokens = 32,  // tokens that pass over a pair of panels: 16 and 8 kB, with sums and outputs in the first cache
  kAmxBlockM = 256,   // tokens for which a panel is unpacked once
  kChunkPanels = 32,  // 128 kB of unpacked codes and 512 kB of outputs: the second-level cache
};

/// Activations lie in units of two tiles for each 64 columns, [unit][cols / 64][2][16 tokens][64]: of 16-bit codes the
/// high and the low bytes of 16 tokens, of 8-bit ones 32 tokens.
template <class Code>
struct Unit;
template <>
struct Unit<int16_t> {
  enum : int32_t { kTokens = 16, kLeast = 5 };
  /// 64 columns of a token, whose bytes have their place in the first and in the second tile.
  static void put(const int16_t* codes, int32_t, uint8_t* high) {
    alignas(64) static constexpr struct Order {
      uint8_t at[64];
      constexpr Order() : at() {  // byte 2 * column; the middle two of each four columns change places
        for (int i = 0; i < 64; ++i) at[i] = uint8_t(2 * ((i & ~3) + (i & 1) * 2 + (i >> 1 & 1)));
      }
    } kOrder;
    const __m512i a = _mm512_loadu_si512(codes), b = _mm512_loadu_si512(codes + 32),
                  order = _mm512_load_si512(kOrder.at);
    _mm512_storeu_si512(high, _mm512_permutex2var_epi8(a, _mm512_or_si512(order, _mm512_set1_epi8(1)), b));
    _mm512_storeu_si512(high + kTileBytes, _mm512_permutex2var_epi8(a, order, b));
  }
  static void first_panel() {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbusd(2, 5, 6);
  }
  static void second_panel() {
    _tile_dpbssd(1, 4, 7);
    _tile_dpbusd(3, 5, 7);
  }
};
template <>
struct Unit<int8_t> {
  enum : int32_t { kTokens = 32, kLeast = 9 };
  static void put(const int8_t* codes, int32_t half, uint8_t* first) {
    __builtin_memcpy(first + half * kTileBytes, codes, kTileK);
  }
  static void first_panel() {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(2, 5, 6);
  }
  static void second_panel() {
    _tile_dpbssd(1, 4, 7);
    _tile_dpbssd(3, 5, 7);
  }
};

/// Where the scale and the sum of a token's group lie, [unit][groups][kTokens].
template <class Code>
ptrdiff_t group_at(int32_t groups, int32_t token, int32_t group) {
  constexpr int32_t kUnit = Unit<Code>::kTokens;
  return (ptrdiff_t(token / kUnit) * groups + group) * kUnit + token % kUnit;
}

/// Fewer than kLeast tokens are faster without tiles: 2048 x 2048 from memory takes 4 tokens 172 us without and 227
/// with, 8 of 8 bits 243 and 261, 8 of 16 bits 350 and 245.
template <class Code>
bool in_tiles(const ActInt<Code>& x) {
  return x.tokens >= Unit<Code>::kLeast && x.group % kTileK == 0;
}

template <class Code>
void amx_quantize(const float* x, const ActInt<Code>& to, int32_t begin, int32_t end) {
  if (!in_tiles(to)) return quantize_act(x, to, begin, end);
  const int32_t groups = to.cols / to.group, units = Unit<Code>::kTokens;
  Code codes[kMaxActGroup];
  for (int32_t t = begin; t < end; ++t)
    for (int32_t g = 0; g < groups; ++g) {
      const ptrdiff_t i = group_at<Code>(groups, t, g);
      to.sums[i] = quantize_group(x + (ptrdiff_t(t) * groups + g) * to.group, to.group, codes, to.scales + i);
      for (int32_t k = 0; k < to.group; k += kTileK) {
        const ptrdiff_t tile = ptrdiff_t(t / units) * (to.cols / kTileK) + (g * to.group + k) / kTileK;
        Unit<Code>::put(codes + k, t % units / kTileRows,
                        reinterpret_cast<uint8_t*>(to.codes) + 2 * tile * kTileBytes + t % kTileRows * kTileK);
      }
    }
}

/// A block of tokens times a chunk of panels.
template <class Code>
class AmxChunk {
 public:
  AmxChunk(const PackedInt& w, const ActInt<Code>& x, float* y, ptrdiff_t y_row) : w_(w), x_(x), y_(y), y_row_(y_row) {}

  void run(int32_t t0, int32_t tokens, int32_t panel, int32_t panels) {
    t0_ = t0, tokens_ = tokens, panel_ = panel, panels_ = panels;
    const int32_t step = few_ ? 1 : kAmxBlockK / w_.group, wide = few_ ? 2 : panels_;
    for (g0_ = 0; g0_ < all_groups_; g0_ += step) {
      groups_ = min_of(step, all_groups_ - g0_);
      for (int32_t p = 0; p < panels_; p += wide) {
        const int32_t end = min_of(p + wide, panels_);
        unpack_panels(p, end);
        multiply_block(p, end);
      }
    }
    store_second(pending_.sums);
    finish();
    for (int32_t p = 0; p < panels_; ++p) write(p);
  }
  int32_t panels() const { return few_ ? 8 : kChunkPanels; }

 private:
  static constexpr int32_t kUnit = Unit<Code>::kTokens,
                           kMaxGroups = 2 * kAmxBlockK / kTileK;  // the last of a block wait while the next is unpacked
  static constexpr bool kWide = sizeof(Code) == 2;

  /// Sums of one group of a unit and two panels, on their way to y.
  struct Pending {
    int32_t* sums = nullptr;  // [4][16][16]
    int32_t panel = 0, unit = 0, group = 0;
  };

  void unpack_panels(int32_t begin, int32_t end) {
    for (int32_t p = begin; p < end; ++p)
      for (int32_t g = g0_; g < g0_ + groups_; ++g) {
        const IntGroup group{first_.at + (ptrdiff_t(panel_ + p) * all_groups_ + g) * bytes_, first_.code_bytes,
                             first_.half_scales};
        int32_t* to = unpacked(p, g);
        for (int32_t b = 0; b < group.code_bytes; b += 64) __builtin_prefetch(group.at + b + kFewAhead);
        if (w_.bits == 4)
          unpack<Avx512, int8_t, 4>(group, to);
        else
          centre(group, to);
        Avx512::store(weight_scales_[p][g % kMaxGroups], load_scales<Avx512>(group, 0));
        Avx512::store(offsets_[p][g % kMaxGroups],
                      _mm512_sub_epi32(_mm512_set1_epi32(128), Avx512::load_bytes(group.zeros())));
      }
    tile_fence();
  }

  /// Codes of 8 bits less 128: less their zero points they would not fit.
  static void centre(const IntGroup& group, int32_t* to) {
    for (int32_t b = 0; b < group.code_bytes; b += 64)
      Avx512::store(to + b / 4, _mm512_xor_si512(Avx512::load_words(group.at + b), _mm512_set1_epi8(-128)));
  }

  int32_t* unpacked(int32_t panel, int32_t group) {
    return b_ + (panel * kAmxBlockK + (group - g0_) * w_.group) / 4 * kPanel;
  }

  void multiply_block(int32_t begin, int32_t end) {
    constexpr int32_t kUnits = kChunkTokens / kUnit;
    const int32_t units = (tokens_ + kUnit - 1) / kUnit;
    for (int32_t first = 0; first < units; first += kUnits)
      for (int32_t p = begin; p < end; p += 2)
        for (int32_t u = first; u < min_of(first + kUnits, units); ++u)
          for (int32_t g = g0_; g < g0_ + groups_; ++g) multiply_group(p, u, g);
  }

  /// Sums leave their tiles while the other panel's are multiplied, and are added to y while the next group is.
  void multiply_group(int32_t p, int32_t u, int32_t g) {
    int32_t* sums = sums_[flip_ ^= 1];
    const int32_t next = p + 1 < panels_ ? kAmxBlockK / 4 * kPanel : 0;
    const ptrdiff_t unit = ptrdiff_t(t0_ / kUnit + u) * (w_.cols / kTileK) + g * steps_;
    const auto* a = reinterpret_cast<const uint8_t*>(x_.codes) + 2 * unit * kTileBytes;
    const int32_t* b = unpacked(p, g);
    for (int32_t s = 0; s < steps_; ++s, a += 2 * kTileBytes, b += kTileBytes / 4) {
      _tile_loadd(4, a, kTileK);
      _tile_loadd(6, b, kTileK);
      _tile_loadd(5, a + kTileBytes, kTileK);
      if (s == 0) _tile_zero(0);
      if (s == 0) _tile_zero(2);
      Unit<Code>::first_panel();
      _tile_loadd(7, b + next, kTileK);
      if (s == 0) start_second();
      Unit<Code>::second_panel();
    }
    _tile_stored(0, sums, kTileK);
    _tile_stored(2, sums + 512, kTileK);
    tile_fence();
    finish();
    pending_ = {sums, p, u, g};
  }

  void start_second() {
    if (pending_.sums) store_second(pending_.sums);
    _tile_zero(1);
    _tile_zero(3);
  }
  void store_second(int32_t* sums) {
    _tile_stored(1, sums + 256, kTileK);
    _tile_stored(3, sums + 768, kTileK);
    tile_fence();
  }

  /// Where the outputs of a unit and a panel are gathered, [kUnit][16]. Rows of y are apart by powers of two, where a
  /// load would wait for the store before it.
  float* out(int32_t panel, int32_t unit) { return out_[panel / 2][unit] + panel % 2 * kUnit * kPanel; }

  void finish() {
    if (!pending_.sums) return;
    const bool first = pending_.group == 0;
    const auto add = w_.bits == 8 ? &AmxChunk::add_sums<true, false>
                     : first      ? &AmxChunk::add_sums<false, true>
                                  : &AmxChunk::add_sums<false, false>;
    for (int32_t j = 0; j < min_of(2, panels_ - pending_.panel); ++j)
      (this->*add)(pending_.panel + j, pending_.sums + 256 * j);
    pending_.sums = nullptr;
  }

  /// Adds the sums of one group of a panel, [2][16][16] of them, 512 apart; four tokens at a time, a last few of them
  /// perhaps beyond the end.
  template <bool kEight, bool kFirst>
  void add_sums(int32_t panel, const int32_t* sums) {
    const int32_t first = pending_.unit * kUnit, n = min_of(kUnit, tokens_ - first);
    const ptrdiff_t at = group_at<Code>(all_groups_, t0_ + first, pending_.group);
    float* to = out(panel, pending_.unit);
    const __m512 weight_scales = _mm512_load_ps(weight_scales_[panel][pending_.group % kMaxGroups]);
    const __m512i offsets = _mm512_load_si512(offsets_[panel][pending_.group % kMaxGroups]);
    for (int32_t t = 0; t < n; t += 4) {
      const int32_t* from = sums + (t / kTileRows * 512 + t % kTileRows * kPanel);
      unroll<4>([&](auto r) AWQ_INLINE_LAMBDA {
        constexpr int32_t i = r.value * kPanel;
        __m512i d = _mm512_load_si512(from + i);
        if constexpr (kWide) d = _mm512_add_epi32(_mm512_slli_epi32(d, 8), _mm512_load_si512(from + 512 + i));
        if constexpr (kEight)
          d = _mm512_add_epi32(d, _mm512_mullo_epi32(offsets, _mm512_set1_epi32(x_.sums[at + t + r.value])));
        const __m512 scales = _mm512_mul_ps(weight_scales, _mm512_set1_ps(x_.scales[at + t + r.value]));
        const bool begin = kFirst || (kEight && pending_.group == 0);
        const __m512 old = begin ? _mm512_setzero_ps() : _mm512_load_ps(to + t * kPanel + i);
        _mm512_store_ps(to + t * kPanel + i, _mm512_fmadd_ps(scales, _mm512_cvtepi32_ps(d), old));
      });
    }
  }

  void write(int32_t panel) {
    const int32_t row = (panel_ + panel) * kPanel, rows = w_.rows - row;
    const auto mask = __mmask16(rows >= kPanel ? 0xffff : (1 << rows) - 1);
    for (int32_t t = 0; t < tokens_; ++t)
      _mm512_mask_storeu_ps(y_ + (t0_ + t) * y_row_ + row, mask,
                            _mm512_load_ps(out(panel, t / kUnit) + t % kUnit * kPanel));
  }

  const PackedInt& w_;
  const ActInt<Code>& x_;
  float* y_;
  ptrdiff_t y_row_;
  /// Each pair of panels is multiplied as soon as a group of it is unpacked, and a chunk's panels are as many streams
  /// from memory. Otherwise what is unpacked serves many tokens.
  const bool few_ = x_.tokens <= kChunkTokens;
  // int_group() with its divisions done once.
  const IntGroup first_ = int_group(w_, 0, 0);
  const ptrdiff_t bytes_ = int_group(w_, 0, 1).at - first_.at;  // of a group of a panel
  const int32_t all_groups_ = w_.cols / w_.group, steps_ = w_.group / kTileK;
  int32_t t0_ = 0, tokens_ = 0, panel_ = 0, panels_ = 0, g0_ = 0, groups_ = 0;
  int32_t flip_ = 0;
  Pending pending_{};
  alignas(64) int32_t b_[kChunkPanels * kAmxBlockK / 4 * kPanel];
  alignas(64) float out_[kChunkPanels / 2][kAmxBlockM / kUnit][kUnit * 2 * kPanel];
  alignas(64) int32_t sums_[2][4 * 256];
  alignas(64) float weight_scales_[kChunkPanels][kMaxGroups][kPanel];
  alignas(64) int32_t offsets_[kChunkPanels][kMaxGroups][kPanel];
};

template <class Code>
void amx_many(const PackedInt& w, const ActInt<Code>& x, float* y, ptrdiff_t y_row, int32_t panel_begin,
              int32_t panel_end) {
  AmxChunk<Code> chunk(w, x, y, y_row);
  configure_tiles(min_of<int32_t>(x.tokens, kTileRows));
  for (int32_t t = 0; t < x.tokens; t += kAmxBlockM)
    for (int32_t p = panel_begin; p < panel_end; p += chunk.panels())
      chunk.run(t, min_of<int32_t>(kAmxBlockM, x.tokens - t), p, min_of(chunk.panels(), panel_end - p));
  _tile_release();
}

template <class Code>
void amx_product(const PackedInt& w, const ActInt<Code>& x, float* y, ptrdiff_t y_row, int32_t panel_begin,
                 int32_t panel_end) {
  if (in_tiles(x)) return amx_many(w, x, y, y_row, panel_begin, panel_end);
  if constexpr (sizeof(Code) == 2)
    matmul_i16<Avx512>(w, x, y, y_row, panel_begin, panel_end);
  else
    matmul_i8<Avx512>(w, x, y, y_row, panel_begin, panel_end);
}

}  // namespace

extern const KernelSet amx;
constinit const KernelSet amx = [] {
  KernelSet set = vector_set<Avx512>("amx", 1 | 2 | 4 | 16);  // kAvx2, kAvx512Vnni, kAvx512Bf16, kAmx
  set.token_block = Unit<int8_t>::kTokens;                    // two units of 16-bit codes
  set.quantize_i16 = amx_quantize<int16_t>;
  set.quantize_i8 = amx_quantize<int8_t>;
  set.matmul_i16 = amx_product<int16_t>;
  set.matmul_i8 = amx_product<int8_t>;
  set.split_bf16 = split_bf16;
  set.tiles_bf16 = tiles_bf16;
  set.tiles_f16 = tiles_f16;
  set.tiles_int = tiles_int;
  set.attend_bf16 = attend_on_tiles;
  return set;
}();

}  // namespace awq::kernels
