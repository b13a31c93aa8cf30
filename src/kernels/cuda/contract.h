#pragma once
// The contract between the backend and its CUDA kernels: plain structs of device pointers, and a table of functions
// that start them. The kernels' sources compile for the GPU (set.cu) and, for the tests, for the host (tests/cuda).
#include <cstddef>
#include <cstdint>

namespace awq::cuda {

/// What activations, and float weights, are multiplied in; sums are in float. f16 keeps 11 bits and needs powers of two
/// that bring a token's or a row's values into its range; bf16 keeps 8 bits.
enum class Half : uint8_t { f16, bf16 };

enum : int32_t {
  kWarp = 32,
  kRowTile = 32,          // rows of a matrix that lie together
  kUnitColumns = 64,      // columns of a unit, the least that a warp reads of them: 128 * bits bytes a sixteen rows
  kSumColumns = 32,       // of an activation's sums, which zero points multiply
  kKvPage = 256,          // positions of a page of a KV cache
  kAttentionRows = 16,    // queries of a tile: the rows of one mma
  kMaxValueDim = 256,     // of a head
  kNoPlace = 0x7fffffff,  // of what is not there
  kMostTop = 64,          // that TopArgs::count may be
  kTopPiece = 2048,       // values of a row that a block looks through
};

/// A matrix as products read it. Rows are padded to kRowTile and columns to kUnitColumns with zeros. `codes` holds, for
/// each 32 rows and each 64 columns, two times [bits / 4][32 lanes][16 bytes]: sixteen rows as the registers of four
/// mma.m16n8k16, step after step, so that each lane reads its own with 16-byte loads. Lane 4 g + t has of step j rows g
/// and g + 8, columns 32 (j / 2) + 8 t + 4 (j % 2) + (0 .. 3): an mma does not mind in which order it sums, and so a
/// lane reads its activations as they lie, eight at a time.
///   4 bits   a uint32 a step; nibbles i and i + 4 are the halves of the mma's register i
///   8 bits   two uint32 a step; bytes i and i + 2 of word w are the halves of register 2 w + i, for i < 2
///   16 bits  the four registers as they are, in `half`
/// w = code * scale + offset, where offset = -zero * scale if there are zeros. Grids lie [row / 32][groups][32].
struct Matrix {
  uint8_t* codes = nullptr;
  void* scales = nullptr;       // f16 or float, as half_scales says
  uint8_t* zeros = nullptr;     // or
  void* offsets = nullptr;      // of the scales' type; 16-bit matrices have none of the three
  float* row_scales = nullptr;  // [row]: a power of two that brings w / row_scale below 1; 16 bits are divided by it
  float* dense = nullptr;       // a float matrix [rows][cols]; then there is none of the above
  int32_t rows = 0, cols = 0, group = 0, groups = 0;  // group: columns; a multiple of 32, or groups is 1
  int32_t bits = 0;
  bool half_scales = true;
  Half half = Half::f16;  // of 16-bit matrices
};

/// Activations of some tokens as products read them.
struct Act {
  void* values = nullptr;    // `half` [tokens][padded], zero past cols
  float* scales = nullptr;   // [tokens]: powers of two that the values were divided by
  float* sums = nullptr;     // [tokens][padded / 32] of the rounded values
  const float* x = nullptr;  // [tokens][cols], columns in order: what float matrices read
  int32_t tokens = 0, cols = 0, padded = 0;
  Half half = Half::f16;
  bool grouped = false;  // columns in the order of products of four warps: see grouped_column; where Device has them
};

/// y[t][r] = sum of w[r][c] x[t][c] + bias[r]. The arithmetic is chosen as for `batch` tokens. Work is shared out over
/// blocks in a way that depends on the matrix and on `multiprocessors` alone, so that what a token becomes does not
/// depend on how many others there are. What several blocks have of one tile they leave in `partial`, and the last of
/// them adds it up in their order. It leaves `counters` as it found them: zeros.
struct LinearArgs {
  Matrix w;
  Act x;
  const float* bias = nullptr;  // [rows] or null
  float* y = nullptr;           // [tokens][y_row]
  int64_t y_row = 0;
  float* partial = nullptr;     // [partial_floats()], the same for products that begin together
  int32_t* counters = nullptr;  // [linear_tiles()]
  int32_t batch = 0;            // at least x.tokens
  int32_t multiprocessors = 0;
  void* slice = nullptr;   // room for slice_rows rows of 16 bits, where more than kMaxDirect tokens read codes
  int32_t slice_rows = 0;  // a multiple of 128
};
/// Up to kMostTogether products of the same activations, each with counters of its own: one start where all matrices
/// have the same bits, below 32, and `batch` is at most kMaxDirect. Each has blocks [first[i], first[i + 1]) of it, as
/// many as its part of all units: together they keep the GPU as busy as one product of all rows would.
enum : int32_t { kMostTogether = 3 };
struct LinearsArgs {
  LinearArgs of[kMostTogether];
  int32_t count;
  int32_t first[kMostTogether + 1];  // set by who starts them; beyond `count` the number of blocks
};
enum : int32_t {
  kFewTokens = 16,                 // up to here blocks read weights into registers, beyond into shared memory
  kMaxDirect = 64,                 // and beyond here codes are first decoded, a slice of rows at a time
  kPartialFloats = 2 * 128 * 128,  // of `partial`, a block: its two parts of tiles that it shares
};
/// Blocks of products that begin together need half of it each, and are at most two more than multiprocessors.
inline int64_t partial_floats(int64_t tokens, int64_t multiprocessors) {
  return (tokens + 127) / 128 * (multiprocessors > 2 ? multiprocessors : 2) * kPartialFloats;
}
/// Counters that a product needs.
inline int64_t linear_tiles(int64_t rows, int64_t tokens) {
  return (rows + kRowTile - 1) / kRowTile * ((tokens + 127) / 128);
}

enum class Map : int32_t {
  silu,
  gelu_tanh,
  gelu,
  relu,
  relu2,
  add,
  scale,
  zero,
  clip,
  soft_cap,
  swish_gate,
  swish_up,
  sigmoid
};
struct PrepareArgs {
  const float* x;         // [tokens][cols]
  const float* factors;   // [cols] that multiply x, or null
  const int32_t* order;   // [cols]: column c of the result is order[c] of x, or null
  Act to;                 // to.x is written if it is not null
  float* copy = nullptr;  // where to.x is to be made: factors or an order change it
  bool mapped = false;    // x becomes map(x), times up where it is not null; then factors multiply it
  Map map = Map::silu;
  const float* up = nullptr;  // [tokens][cols]
};

/// Codes of rows [row, row + count) and columns [col, col + width) as files have them, one a byte, to their places.
/// Rows and columns are multiples of 16, or the matrix's last.
struct PackCodesArgs {
  Matrix to;
  const uint8_t* codes;  // [count][width]
  int32_t row, count, col, width;
};
/// The same of a float matrix: f32, f16 or bf16 to to.half, divided by row_scales.
struct PackFloatsArgs {
  Matrix to;
  const void* values;  // [count][width]
  int32_t type;        // 0 f32, 1 f16, 2 bf16
  int32_t row, count, col, width;
};

/// y = norm(x), or, where there is something `added`, x += by * added before it; y may be x or `added`.
struct NormArgs {
  const float *x, *gain, *bias;  // gain and bias: [width], or [runs_of_row * width], or null
  float* y;
  int64_t runs;  // of `width` values
  int32_t width, runs_of_row;
  float eps, gain_offset;
  bool layer;  // subtract the mean
  const float* added = nullptr;
  float by = 0;
  float* sum = nullptr;  // x, to be written
};
struct RopeArgs {
  float* x;                      // [tokens][width]
  const float *cosines, *sines;  // [tokens][half]
  int64_t tokens;
  int32_t width, head_dim, first, half;
  bool interleaved;
};
struct JoinArgs {
  const float *own, *shared;
  float* y;
  int64_t heads_in_all;  // tokens * heads
  int32_t heads, part, rest;
};

/// y[i] = f(x[i], u[i]); a and b are the function's numbers. Activations: f(x) * u, u may be null. add: y + a * x.
struct MapArgs {
  Map map;
  const float *x, *u;
  float* y;
  int64_t n;
  float a, b;
};
/// y[to[i]] (+)= weights[i] * x[from[i]], rows of `width`; null: i itself, and 1.
struct RowsArgs {
  const float* x;
  float* y;
  const int32_t *from, *to;
  const float* weights;
  int64_t rows, width;
  bool accumulate;
};
/// The `count` largest of each row in falling order, of equals the first, by pieces of a row: of each its largest, and
/// then those of all pieces, which lie in their order. What is no number is never among them.
struct TopArgs {
  const float* x;
  const int32_t* places;  // of x's values in the row that they came from; null: their own
  float* values;          // [rows][pieces][count]; -infinity where a piece has not so many
  int32_t* tokens;        // [rows][pieces][count]
  int32_t rows, width, count, pieces;
};

enum class KvType : int32_t { f16, bf16, i8, f8 };  // f8: e4m3
/// Pages of all blocks' keys and values: at `block_offset` of a page each kv head has keys [256][dim], then values
/// transposed, [value_dim][256], so that a lane reads eight positions of a channel at once; i8 and f8 have float
/// scales[256] of keys and of values behind them. dim is a multiple of 32, value_dim of 8; what is past a head's width
/// is 0.
struct KvShape {
  KvType type;
  int32_t heads, head_dim, value_dim;  // as the model has them
  int32_t dim, padded_value;           // as pages have them
  int64_t head_bytes, block_offset;
};
/// `tokens` rows of a batch, the first at position `first` of a sequence whose pages begin at `pages` of the table.
struct KvSequence {
  int32_t row, tokens, first, pages;
};
struct KvStoreArgs {
  KvShape kv;
  const float *k, *v;  // [tokens][heads * head_dim], [tokens][heads * value_dim]
  uint8_t* const* table;
  const KvSequence* sequences;
  const int32_t* sequence_of;  // [tokens]
  int32_t tokens;
};
/// A norm of each head; gain and bias [width], or [heads * width], or null.
struct HeadNormArgs {
  const float *gain, *bias;
  int32_t heads;  // that have their own
  float eps, gain_offset;
  bool layer, present;
};
/// Heads before attention: norms, rotation of the first 2 half channels, keys and values to their places. Queries are
/// written where they are.
struct HeadsArgs {
  KvStoreArgs store;
  float* q;       // [tokens][heads * head_dim]
  int32_t heads;  // of queries
  HeadNormArgs q_norm, k_norm;
  const float *cosines, *sines;  // [tokens][half]
  int32_t half;                  // 0: nothing is rotated
  bool interleaved;
};
/// Up to 16 queries of one kv head: row i is token i / share of the sequence's and query head i % share of its group.
/// They read pages [page_begin, page_end); of their parts the first is `part`, where pages are split.
struct AttentionTile {
  int32_t sequence, head, begin, end, page_begin, page_end, part;
};
/// One page of a tile, or nothing where `tile` is below 0.
struct AttentionUnit {
  int32_t tile, page;
};
struct AttentionArgs {
  KvShape kv;
  const float* q;  // [tokens][heads * head_dim]
  float* y;        // [tokens][heads * value_dim]
  uint8_t* const* table;
  const KvSequence* sequences;
  const AttentionTile* tiles;  // first those that a warp computes alone, then those that are split by pages
  const AttentionUnit* units;  // of the latter
  int32_t whole_count, unit_count;
  int32_t share, window;        // window 0: none
  float scale, cap;             // times log2 e
  const float *slopes, *sinks;  // [heads] or null, times log2 e
  float* parts;                 // [units][16][padded_value + 2]; of a tile with one page none is written
  int32_t* counters;            // [tiles], zeros, and zeros again
};

/// Starts kernels on a device. `on` is what the device gives them: a stream. No call waits for its kernel.
struct Kernels {
  void (*linear)(void* on, const LinearsArgs& a);
  void (*prepare)(void* on, const PrepareArgs& a);
  void (*pack_codes)(void* on, const PackCodesArgs& a);
  void (*pack_floats)(void* on, const PackFloatsArgs& a);
  void (*norm)(void* on, const NormArgs& a);
  void (*rope)(void* on, const RopeArgs& a);
  void (*join)(void* on, const JoinArgs& a);
  void (*map)(void* on, const MapArgs& a);
  void (*rows)(void* on, const RowsArgs& a);
  void (*top)(void* on, const TopArgs& a);
  void (*kv_store)(void* on, const KvStoreArgs& a);
  void (*heads)(void* on, const HeadsArgs& a);
  void (*attention)(void* on, const AttentionArgs& a);
};

}  // namespace awq::cuda
