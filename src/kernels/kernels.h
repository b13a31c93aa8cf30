#pragma once
// The contract between the library and its CPU kernels, and the only header a kernel file may include besides
// generic.h, <stddef.h>, <stdint.h> and the intrinsics. Plain structs, no inline functions: anything inline would be
// compiled once per instruction set and the linker would keep an arbitrary copy.
#include <stddef.h>
#include <stdint.h>

namespace awq::kernels {

/// Rows of a weight matrix are grouped into panels of 16, one vector of 16 outputs per column. Every set uses this
/// layout, so packing is written once.
enum : int32_t { kPanel = 16 };

/// Columns of activations that share one scale, at most: 128 * 255 * 32767 fits in 31 bits, and so does what is left of
/// it when a zero point times the sum of codes is taken away.
enum : int32_t { kMaxActGroup = 128 };

/// c[m][n] = (accumulate ? c[m][n] : 0) + sum over k of a[m * a_row + k] * b[(n / 16) * b_panel + k * b_k + n % 16]
/// for m < M, n < N. A weight packed in panels has b_panel = K * 16, b_k = 16; a row-major [K][N] matrix has
/// b_panel = 16, b_k = N. Columns of the last panel past N are read (the caller pads by up to 15 elements) and never
/// written. The sum over k runs in order for every output, whatever M is, so a token's result does not depend on how
/// many tokens are computed with it. b is float, bfloat16 or float16, by the entry that is called.
struct Gemm {
  const float* a;
  ptrdiff_t a_row;
  const void* b;
  ptrdiff_t b_panel, b_k;  // in elements of b
  float* c;
  ptrdiff_t c_row;
  int32_t m, n, k;
  bool accumulate;
};

/// 4- or 8-bit weights in panels of 16 rows, one stream that is read strictly in order. For each panel and each group
/// of `group` columns (8 <= group <= kMaxActGroup, a multiple of 8; cols >= group), the stream holds
///   uint32 codes[group * bits / 32][16]   for each lane the codes of the next 32 / bits columns, column c at the place
///                                         whose number is c with its bits reversed: 4-bit columns lie 0 4 2 6 1 5 3 7,
///                                         from the low end, 8-bit ones 0 2 1 3. Masks then give, after a shift, two
///                                         columns as a pair of int16 or four as int8 (0 2 1 3) for dot products.
///   float16 or float scales[16]           as half_scales says
///   uint8  zeros[16]
/// Rows past the end of the last panel have scale 0. A group of a
/// panel is bits * group * 2 + 48 bytes, or 80 with float scales.
struct PackedInt {
  const uint8_t* stream;
  int32_t rows, cols, group;
  int32_t bits;
  bool half_scales;
};

/// Activations as integers, x = codes * scale: codes of [tokens][cols] and [tokens][cols / group] scales and sums of
/// codes (what the zero point multiplies). Integer dot products are exact, so every set gives the same sums. 16 bits
/// keep the values to 2^-16 of the largest in the group, which is finer than bfloat16 or float16; 8 bits to 2^-8. How
/// codes lie is the affair of the set that wrote them; there is room for a multiple of KernelSet::token_block tokens.
template <class Code>
struct ActInt {
  Code* codes;
  float* scales;
  int32_t* sums;
  int32_t tokens, cols, group;
};
using ActI16 = ActInt<int16_t>;
using ActI8 = ActInt<int8_t>;

/// Every function is thread-agnostic: the caller splits rows, panels or tokens.
struct KernelSet {
  const char* name;  // "avx2", as accepted by AWQ_ISA and --isa
  uint32_t needs;    // CpuFeature bits of base/cpu.h
  void (*gemm_f32)(const Gemm& g);
  void (*gemm_bf16)(const Gemm& g);
  void (*gemm_f16)(const Gemm& g);
  int32_t token_block;
  /// Tokens [begin, end) of x [to.tokens][to.cols]; begin and end are multiples of token_block, or to.tokens.
  /// scale = max|x| / L of the group with L = 32767 or 127, codes = round to nearest even of x * (L / max|x|), at most
  /// L in magnitude; a group of zeros, or of values all below 2^-112, has scale 0.
  void (*quantize_i16)(const float* x, const ActI16& to, int32_t begin, int32_t end);
  void (*quantize_i8)(const float* x, const ActI8& to, int32_t begin, int32_t end);
  /// y[t * y_row + r] = sum over groups, in order, of (ws * xs) * float(sum of (code - zero) * x code)
  /// for panels [panel_begin, panel_end); only r < w.rows is written. 8-bit weights take 16-bit activations only.
  void (*matmul_i16)(const PackedInt& w, const ActI16& x, float* y, ptrdiff_t y_row, int32_t panel_begin,
                     int32_t panel_end);
  void (*matmul_i8)(const PackedInt& w, const ActI8& x, float* y, ptrdiff_t y_row, int32_t panel_begin,
                    int32_t panel_end);
  /// y[t] = x[t] / sqrt(mean(x[t]^2) + eps) * (gain + gain_offset); x and y may be the same.
  void (*rms_norm)(const float* x, const float* gain, float gain_offset, float eps, int32_t tokens, int32_t dim,
                   float* y);
  /// In place, over the first n entries of each of `rows` rows: softmax.
  void (*softmax)(float* x, ptrdiff_t x_row, int32_t rows, int32_t n);
  /// y[i] = act(g[i]) * u[i]; y may be g.
  void (*silu_mul)(const float* g, const float* u, float* y, int64_t n);
  void (*gelu_tanh_mul)(const float* g, const float* u, float* y, int64_t n);
  void (*add)(const float* x, float* y, int64_t n);  // y += x
  /// Rotates pairs (i, i + dims / 2) of each of `heads` consecutive heads of head_dim: cosines and sines [dims / 2].
  void (*rope)(float* x, const float* cosines, const float* sines, int32_t heads, int32_t head_dim, int32_t dims);
  /// log(sum(exp(x))), without overflow.
  double (*log_sum_exp)(const float* x, int32_t n);
};

}  // namespace awq::kernels
