// What any CPU runs, and the plainest statement of what every other set computes.
#include "kernels/attention.h"

namespace awq::kernels {
namespace {

inline float load(float v) { return v; }
inline float load(int8_t v) { return v; }
inline float load(F8 v) { return float_of(uint32_t(v.bits & 0x7f) << 20 | uint32_t(v.bits & 0x80) << 24) * 0x1p120f; }
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

// The lowest `bits` bits of n, reversed.
constexpr int32_t reversed(int32_t n, int32_t bits) {
  int32_t r = 0;
  for (int32_t i = 0; i < bits; ++i) r |= (n >> i & 1) << (bits - 1 - i);
  return r;
}

// Codes of one group of a panel, one vector of 16 rows per column, zero points subtracted.
void decode(const PackedInt& w, const uint8_t* block, const uint8_t* zeros, int16_t (*out)[kPanel]) {
  const int32_t columns = 32 / w.bits, log2 = w.bits == 4 ? 3 : 2;
  for (int32_t c = 0; c < w.group; c += columns, block += 64)
    for (int32_t r = 0; r < kPanel; ++r) {
      uint32_t word = 0;
      __builtin_memcpy(&word, block + 4 * r, 4);
      for (int32_t i = 0; i < columns; ++i)
        out[c + reversed(i, log2)][r] = int16_t(int32_t(word >> w.bits * i & ((1u << w.bits) - 1)) - zeros[r]);
    }
}

void read_scales(const uint8_t* at, bool half, float* out) {
  if (!half) return void(__builtin_memcpy(out, at, kPanel * sizeof(float)));
  uint16_t bits[kPanel];
  __builtin_memcpy(bits, at, sizeof(bits));
  for (int32_t r = 0; r < kPanel; ++r) out[r] = load(F16{bits[r]});
}

// Column c of a group's activations.
int32_t code_at(const int16_t* x, int32_t c) { return x[c]; }
int32_t code_at(const int8_t* x, int32_t c) { return x[(c & ~3) | reversed(c & 3, 2)]; }

template <class Code>
void dot_group(const int16_t (*w)[kPanel], const Code* x, int32_t group, int32_t* sums) {
  for (int32_t r = 0; r < kPanel; ++r) sums[r] = 0;
  for (int32_t c = 0; c < group; ++c)
    for (int32_t r = 0; r < kPanel; ++r) sums[r] += w[c][r] * code_at(x, c);
}

/// y (+)= one group of one panel.
template <class Code>
void add_group(const PackedInt& w, const ActInt<Code>& x, int32_t panel, int32_t g, float* y, ptrdiff_t y_row) {
  const int32_t groups = w.cols / w.group, rows = min(kPanel, w.rows - panel * kPanel);
  const ptrdiff_t bytes = w.group * w.bits / 8 * kPanel, step = bytes + (w.half_scales ? 3 : 5) * kPanel;
  const uint8_t* at = w.stream + (ptrdiff_t(panel) * groups + g) * step;
  int16_t codes[kMaxActGroup][kPanel];
  int32_t sums[kPanel];
  float scales[kPanel];
  decode(w, at, at + step - kPanel, codes);
  read_scales(at + bytes, w.half_scales, scales);
  for (int32_t t = 0; t < x.tokens; ++t) {
    const ptrdiff_t i = ptrdiff_t(t) * groups + g;
    dot_group(codes, x.codes + i * w.group, w.group, sums);
    float* out = y + t * y_row + panel * kPanel;
    for (int32_t r = 0; r < rows; ++r) out[r] = (g ? out[r] : 0.f) + scales[r] * x.scales[i] * float(sums[r]);
  }
}

template <class Code>
void matmul_int(const PackedInt& w, const ActInt<Code>& x, float* y, ptrdiff_t y_row, int32_t panel_begin,
                int32_t panel_end) {
  for (int32_t p = panel_begin; p < panel_end; ++p)
    for (int32_t g = 0; g < w.cols / w.group; ++g) add_group(w, x, p, g, y, y_row);
}

}  // namespace

extern const KernelSet portable;
const KernelSet portable = {
    .name = "portable",
    .needs = 0,
    .gemm_f32 = gemm<float>,
    .gemm_bf16 = gemm<Bf16>,
    .gemm_f16 = gemm<F16>,
    .token_block = 1,
    .quantize_i16 = quantize_act<int16_t>,
    .quantize_i8 = quantize_act<int8_t>,
    .matmul_i16 = matmul_int<int16_t>,
    .matmul_i8 = matmul_int<int8_t>,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .softmax = softmax,
    .silu_mul = silu_mul,
    .sigmoid_mul = sigmoid_mul,
    .gelu_tanh_mul = gelu_tanh_mul,
    .gelu_mul = gelu_mul,
    .relu_mul = relu_mul,
    .relu2_mul = relu2_mul,
    .add = add,
    .rope = rope,
    .log_sum_exp = log_sum_exp,
    .attend_f32 = attend<Plain, float>,
    .attend_bf16 = attend<Plain, Bf16>,
    .attend_f16 = attend<Plain, F16>,
    .attend_i8 = attend<Plain, int8_t>,
    .attend_f8 = attend<Plain, F8>,
    .attention_merge = attention_merge,
};

}  // namespace awq::kernels
