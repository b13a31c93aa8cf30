#pragma once
// The contract between the library and its CPU kernels, and the only header a kernel file may include besides
// generic.h, tiles.h, attention.h, <stddef.h>, <stdint.h> and the intrinsics. Plain structs, no inline functions:
// anything inline would be compiled once per instruction set and the linker would keep an arbitrary copy.
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
/// Rows past the end of the last panel have scale 0. A group of a panel is bits * group * 2 + 48 bytes, or 80 with
/// float scales.
struct PackedInt {
  const uint8_t* stream;
  int32_t rows, cols, group;
  int32_t bits;
  bool half_scales;
};

/// Activations as integers, x = codes * scale: codes of [tokens][cols] and [tokens][cols / group] scales and sums of
/// codes (what the zero point multiplies). Integer dot products are exact, so every set gives the same sums. 16 bits
/// keep the values to 2^-16 of the largest in the group, which is finer than bfloat16 or float16; 8 bits to 2^-8. In
/// which order all three lie is the affair of the set that wrote them, and may depend on `tokens`.
template <class Code>
struct ActInt {
  Code* codes;
  float* scales;
  int32_t* sums;
  int32_t tokens, cols, group;
};
using ActI16 = ActInt<int16_t>;
using ActI8 = ActInt<int8_t>;

/// Activations as bfloat16 for matrix tiles: rounded to nearest even, or as pairs, x = high + low to 2^-18 of x. They
/// lie in the order of the set that wrote them.
struct ActBf16 {
  uint16_t* values;  // room for a multiple of token_block tokens; twice that for pairs
  int32_t tokens, cols;
  bool pairs;
};

enum : int32_t {
  kTileColumns = 512,      // that a product on tiles can begin and end at
  kKvPage = 256,           // positions of a page of a KV cache, and of one step of attention
  kMaxAttentionRows = 64,  // queries of one step: enough to reuse keys and values, few enough for scores to stay in L2
};

/// What some positions contribute to a softmax(q k^T) v: the largest score (log2), the sum of weights 2^(score - max),
/// and the weighted sum of values. Nothing seen at all is -infinity, 0 and -0: merging that changes no bit.
struct AttentionPart {
  float* max;  // [rows]
  float* sum;  // [rows]
  float* out;  // [rows][value_dim]
};

/// One page of one kv head: kKvPage positions of `dim` channels of keys and `value_dim` of values, the head's widths
/// rounded up to 16; all in units of 2 x 16 elements:
///   keys    [position / 16][channel / 2]   of 2 channels x 16 positions
///   values  [channel / 16][position / 2]   of 2 positions x 16 channels
/// A unit is its first 16 elements and then its second 16; in bfloat16 the two alternate, so that one integer
/// instruction widens 16 of them, and bfloat16 dot products and matrix tiles can read them as they are. Pages of int8
/// and e4m3 end with float key_scales[kKvPage], value_scales[kKvPage]. Keys past the head's width are 0; what lies past
/// the positions that a row sees may be anything.
struct AttentionStep {
  const void* page;
  const float* q;        // [rows][dim], times the query scale and log2 e; 0 past the head's width
  const int32_t* first;  // [rows]: row r sees positions [first[r], last[r]) of the page; none where they are equal
  const int32_t* last;
  int32_t rows, dim, value_dim;  // rows <= kMaxAttentionRows
  AttentionPart to;
  float cap = 0;  // scores become cap * tanh(score / cap), times log2 e like them; 0: they stay
  /// ALiBi: slopes[r] * (i - query[r]) is added to row r's score of position i of the page. null: nothing is.
  const float* slopes = nullptr;  // [rows], times log2 e
  const int32_t* query = nullptr;
};

/// Every function is thread-agnostic: the caller splits rows, panels or tokens.
struct KernelSet {
  const char* name;  // "avx2", as accepted by AWQ_ISA and --isa
  uint32_t needs;    // CpuFeature bits of base/cpu.h
  void (*gemm_f32)(const Gemm& g);
  void (*gemm_bf16)(const Gemm& g);
  void (*gemm_f16)(const Gemm& g);
  int32_t token_block;  // ActInt and ActBf16 have room for a multiple of so many tokens
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
  /// y[t * y_row + r] = sum over columns of w * x on tiles of bfloat16, sums in float; null in sets without tiles.
  /// Columns, and groups of them, are multiples of 32. Weights are bfloat16 or float16 in panels (float16 as pairs of
  /// bfloat16 like activations, or where these are no pairs rounded), or (code - zero) * scale rounded to bfloat16. A
  /// token's result does not depend on its company, but every set's rounding is its own. Subnormal bfloat16 counts as
  /// zero; a token with NaN, infinity or what rounds to infinity has no finite output. Of tokens [begin, end), columns
  /// [first, last).
  void (*split_bf16)(const float* x, const ActBf16& to, int32_t begin, int32_t end, int32_t first,
                     int32_t last) = nullptr;
  /// Columns [first, last) alone: multiples of kTileColumns, or all that there are.
  void (*tiles_bf16)(const uint16_t* panels, int32_t rows, const ActBf16& x, float* y, ptrdiff_t y_row,
                     int32_t panel_begin, int32_t panel_end, int32_t first, int32_t last) = nullptr;
  void (*tiles_f16)(const uint16_t* panels, int32_t rows, const ActBf16& x, float* y, ptrdiff_t y_row,
                    int32_t panel_begin, int32_t panel_end, int32_t first, int32_t last) = nullptr;
  void (*tiles_int)(const PackedInt& w, const ActBf16& x, float* y, ptrdiff_t y_row, int32_t panel_begin,
                    int32_t panel_end) = nullptr;
  /// y[t] = x[t] / sqrt(mean(x[t]^2) + eps) * (gain + gain_offset); x and y may be the same.
  void (*rms_norm)(const float* x, const float* gain, float gain_offset, float eps, int32_t tokens, int32_t dim,
                   float* y);
  /// y[t] = (x[t] - mean) / sqrt(mean of (x[t] - mean)^2 + eps) * (gain + gain_offset) + bias; x and y may be the same.
  void (*layer_norm)(const float* x, const float* gain, const float* bias, float gain_offset, float eps, int32_t tokens,
                     int32_t dim, float* y);
  /// In place, over the first n entries of each of `rows` rows: softmax.
  void (*softmax)(float* x, ptrdiff_t x_row, int32_t rows, int32_t n);
  /// y[i] = act(g[i]) * u[i], or act(g[i]) where u is null; y may be g, or u.
  void (*silu_mul)(const float* g, const float* u, float* y, int64_t n);
  void (*sigmoid_mul)(const float* g, const float* u, float* y, int64_t n);
  void (*gelu_tanh_mul)(const float* g, const float* u, float* y, int64_t n);
  void (*gelu_mul)(const float* g, const float* u, float* y, int64_t n);
  void (*relu_mul)(const float* g, const float* u, float* y, int64_t n);
  void (*relu2_mul)(const float* g, const float* u, float* y, int64_t n);  // relu(g)^2
  void (*add)(const float* x, float scale, float* y, int64_t n);           // y += scale * x
  /// Rotates pairs (i, i + dims / 2), or (2 i, 2 i + 1) if `interleaved`, of each of `heads` consecutive heads of
  /// head_dim: cosines and sines [dims / 2].
  void (*rope)(float* x, const float* cosines, const float* sines, int32_t heads, int32_t head_dim, int32_t dims,
               bool interleaved);
  /// log(sum(exp(x))), without overflow.
  double (*log_sum_exp)(const float* x, int32_t n);

  // attention
  /// One page's part for each row. Scores are one chain over channels and outputs one over the positions that the row
  /// sees, so a row's result depends neither on the rows beside it nor on what it does not see.
  void (*attend_f32)(const AttentionStep& s);
  void (*attend_bf16)(const AttentionStep& s);
  void (*attend_f16)(const AttentionStep& s);
  void (*attend_i8)(const AttentionStep& s);
  void (*attend_f8)(const AttentionStep& s);  // e4m3
  /// into += part; the order of calls decides the rounding.
  void (*attention_merge)(const AttentionPart& part, int32_t rows, int32_t value_dim, const AttentionPart& into);
};

}  // namespace awq::kernels
