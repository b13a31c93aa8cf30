// What any CPU runs, and the plainest statement of what every other set computes.
#include "kernels/attention.h"

namespace awq::kernels {
namespace {

inline float load(float v) { return v; }
inline float load(int8_t v) { return v; }
inline float load(Bf16 v) { return float_of(uint32_t(v.bits) << 16); }
// Exponent and mantissa moved into place and multiplied by 2^112: exact for every finite half, subnormals too.
inline float load(F16 v) {
  const uint32_t rest = uint32_t(v.bits & 0x7fff) << 13;
  const uint32_t finite = bits_of(float_of(rest) * 0x1p112f), special = rest | 0x7f800000u;
  return float_of(((v.bits & 0x7c00) == 0x7c00 ? special : finite) | uint32_t(v.bits & 0x8000) << 16);
}

inline int32_t min(int32_t a, int32_t b) { return a < b ? a : b; }

enum : int32_t { kTile = 2 };  // tokens: 8 of the baseline's 16 vectors

template <class T>
void gemm_panel(const Gemm& g, const T* b, float* c, int32_t m, const float* a, int32_t n) {
  float acc[kTile][kPanel] = {};
  for (int32_t i = 0; i < m && g.accumulate; ++i)
    for (int32_t j = 0; j < n; ++j) acc[i][j] = c[i * g.c_row + j];
  const ptrdiff_t second = m > 1 ? g.a_row : 0;  // a lone token is computed twice
  for (int32_t k = 0; k < g.k; ++k, b += g.b_k)
    for (int32_t j = 0; j < kPanel; ++j) {
      const float w = load(b[j]);
      acc[0][j] += a[k] * w;
      acc[1][j] += a[second + k] * w;
    }
  for (int32_t i = 0; i < m; ++i)
    for (int32_t j = 0; j < n; ++j) c[i * g.c_row + j] = acc[i][j];
}

template <class T>
void gemm(const Gemm& g) {
  const T* b = static_cast<const T*>(g.b);
  for (int32_t n = 0; n < g.n; n += kPanel, b += g.b_panel)
    for (int32_t m = 0; m < g.m; m += kTile)
      gemm_panel(g, b, g.c + m * g.c_row + n, min(kTile, g.m - m), g.a + m * g.a_row, min(kPanel, g.n - n));
}

/// What attention.h asks for, on vectors of four, which the compiler turns into the baseline's.
struct Plain {
  using F = float __attribute__((vector_size(16)));
  static constexpr int kVecs = 4;
  static constexpr int kAcc = 8;
  static constexpr int kTokens = 2;
  static F zero_f() { return F{}; }
  template <class T>
  static F load(const T* p) {
    return F{awq::kernels::load(p[0]), awq::kernels::load(p[1]), awq::kernels::load(p[2]), awq::kernels::load(p[3])};
  }
  static F even(const Bf16* p) {
    return F{awq::kernels::load(p[0]), awq::kernels::load(p[2]), awq::kernels::load(p[4]), awq::kernels::load(p[6])};
  }
  static F odd(const Bf16* p) { return even(p + 1); }
  static void store(float* p, F v) { __builtin_memcpy(p, &v, sizeof(v)); }
  static F set1(float v) { return F{v, v, v, v}; }
  static F mul(F a, F b) { return a * b; }
  static F fma(F a, F b, F c) { return c + a * b; }
};

// Codes of one group of a panel, one vector of 16 rows per column, zero points subtracted.
void decode(const uint8_t* block, int32_t group, int16_t (*out)[kPanel]) {
  const uint8_t* zeros = block + 8 * group + 64;
  for (int32_t c = 0; c < group; c += 8, block += 64)
    for (int32_t r = 0; r < kPanel; ++r) {
      uint32_t word = 0;
      __builtin_memcpy(&word, block + 4 * r, 4);
      for (int32_t i = 0; i < 8; ++i)
        out[c + (i < 4 ? 2 * i : 2 * i - 7)][r] = int16_t(int32_t(word >> 4 * i & 15) - zeros[r]);
    }
}

void dot_group(const int16_t (*w)[kPanel], const int16_t* x, int32_t group, int32_t* sums) {
  for (int32_t r = 0; r < kPanel; ++r) sums[r] = 0;
  for (int32_t c = 0; c < group; ++c)
    for (int32_t r = 0; r < kPanel; ++r) sums[r] += w[c][r] * x[c];
}

void matmul_i4(const PackedI4& w, const ActI16& x, float* y, ptrdiff_t y_row, int32_t panel_begin, int32_t panel_end) {
  const int32_t groups = w.cols / w.group;
  const ptrdiff_t block = 8 * w.group + 80;
  int16_t codes[kMaxActGroup][kPanel];
  int32_t sums[kPanel];
  float scales[kPanel];
  for (int32_t p = panel_begin; p < panel_end; ++p) {
    const int32_t row = p * kPanel, rows = min(kPanel, w.rows - row);
    for (int32_t g = 0; g < groups; ++g) {
      const uint8_t* at = w.stream + (ptrdiff_t(p) * groups + g) * block;
      decode(at, w.group, codes);
      __builtin_memcpy(scales, at + 8 * w.group, sizeof(scales));
      for (int32_t t = 0; t < x.tokens; ++t) {
        const ptrdiff_t i = ptrdiff_t(t) * groups + g;
        dot_group(codes, x.codes + i * w.group, w.group, sums);
        float* out = y + t * y_row + row;
        for (int32_t r = 0; r < rows; ++r) out[r] = (g ? out[r] : 0.f) + scales[r] * x.scales[i] * float(sums[r]);
      }
    }
    // No groups at all: an empty sum.
    for (int32_t t = 0; t < x.tokens && groups == 0; ++t)
      for (int32_t r = 0; r < rows; ++r) y[t * y_row + row + r] = 0;
  }
}

}  // namespace

extern const KernelSet portable;
const KernelSet portable = {
    .name = "portable",
    .needs = 0,
    .gemm_f32 = gemm<float>,
    .gemm_bf16 = gemm<Bf16>,
    .gemm_f16 = gemm<F16>,
    .quantize_i16 = quantize_i16,
    .matmul_i4 = matmul_i4,
    .rms_norm = rms_norm,
    .softmax = softmax,
    .silu_mul = silu_mul,
    .gelu_tanh_mul = gelu_tanh_mul,
    .add = add,
    .rope = rope,
    .log_sum_exp = log_sum_exp,
    .attend_f32 = attend<Plain, float>,
    .attend_bf16 = attend<Plain, Bf16>,
    .attend_f16 = attend<Plain, F16>,
    .attend_i8 = attend<Plain, int8_t>,
    .attention_merge = attention_merge,
};

}  // namespace awq::kernels
