#pragma once
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "model/spec.h"
#include "quant/pieces.h"

namespace awq {

/// y = x W^T + b, with W in whatever form the backend prefers. Thread-safe.
class Linear {
 public:
  virtual ~Linear() = default;
  /// x f32 [tokens, in] -> y f32 [tokens, out]. The arithmetic is chosen as for `batch` tokens, of which these may be
  /// some: what a token becomes must not depend on how many others went the same way.
  virtual void multiply(const Tensor& x, Tensor& y, int64_t batch) const = 0;
  void operator()(const Tensor& x, Tensor& y) const { multiply(x, y, x.shape()[0]); }
  virtual int64_t rows() const = 0;
  virtual int64_t bytes() const = 0;  // read for one token
  /// The type that its products with so many tokens are computed in: f32, or that of codes (i16, i8), or bf16 with sums
  /// in f32.
  virtual DType arithmetic(int64_t tokens) const = 0;
};

/// What a delta net (DeltaSpec) keeps of a sequence, on the host.
struct DeltaState {
  Tensor past;        // f32 [kernel - 1, channels], the convolution's last inputs
  Tensor heads;       // f32 [value_heads, key_dim, value_dim]
  int positions = 0;  // that it is behind
  int64_t bytes() const { return heads ? int64_t(past.bytes() + heads.bytes()) : 0; }
};

/// Keys and values of one sequence in every block, and states in those with a delta net. It grows as positions are
/// written; nothing is allocated ahead.
class KvCache {
 public:
  virtual ~KvCache() = default;
  virtual int64_t bytes() const = 0;
  virtual std::unique_ptr<KvCache> clone() const = 0;  // the same content in memory of its own
  /// What `bytes` will be once an empty cache holds that many positions.
  virtual int64_t bytes_for(int64_t positions) const = 0;
  virtual DeltaState& delta(int block) = 0;
  /// Positions of a page, the unit in which memory grows and can be shared.
  virtual int page_positions() const = 0;
  /// Page `index` of every block, shared with this cache. Only a full page may be: nothing is written to it again. No
  /// page holds what a delta net has of its positions: a model with states has none to share (ModelSpec::recurrent).
  virtual std::vector<Tensor> page(int64_t index) const = 0;
  /// Puts a page of a cache of the same kind in the place of its own, or behind those that it has.
  virtual void put_page(int64_t index, std::span<const Tensor> page) = 0;
  /// Takes a device's memory for so many positions now. Throws Error where it has not so much beside what it works in.
  virtual void make_room([[maybe_unused]] int64_t positions) {}
};
/// The type named by --kv: "f32", "f16", "bf16", "int8" or "fp8"; `otherwise` where the name is empty. Throws Error.
DType kv_type(std::string_view name, DType otherwise);
/// Of the scales of a position's key and value in one head.
inline int64_t kv_scale_bytes(DType t) { return size_of(t) == 1 ? 2 * int64_t(sizeof(float)) : 0; }

/// `tokens` consecutive rows of a batch, the first at position `first` of a sequence whose earlier positions `kv`
/// holds.
struct Sequence {
  KvCache* kv = nullptr;
  int first = 0;
  int tokens = 0;
  int length = 0;  // that angles follow where they depend on it (RopeSpec::regime); 0: what there is after these tokens
  int reach() const { return length ? length : first + tokens; }
};

/// Several sequences, each with its own positions and cache, computed together. Rows follow the order of sequences.
using Batch = std::span<const Sequence>;
int tokens_of(Batch batch);

/// What a device reaches at best: gigabytes a second that copies of `copied` bytes move, read and written, and
/// gigaflops of its own dense products.
struct DeviceRates {
  double copy = 0, product = 0;
  int64_t copied = 0;
  DType type = DType::f16;
};

/// A model's matrix by its block and parameter, -1 and head for the head, as it would be loaded.
using MatrixOf = std::function<Pieces(int block, Param p)>;

/// What a device has recorded of a model's passes: see Backend::repeat.
class Recordings {
 public:
  virtual ~Recordings() = default;
};

/// What a delta net makes its output of: projections f32 [tokens, rows], and its constants, which are on the host.
struct DeltaInput {
  Tensor q, k, v, beta, decay;
  Tensor conv, decay_bias, decay_rate;  // f32 [channels, kernel], [value_heads], [value_heads]
};

/// What attention is made of: projections f32 [tokens, rows], the norms of each head of queries and keys where a model
/// has them, and frequencies that all channels of RopeSpec::dims are turned by; none: they are not.
struct HeadsInput {
  struct Norm {
    Tensor gain, bias;
    NormSpec spec;
  };
  Tensor q, k, v;
  std::optional<Norm> q_norm, k_norm;
  std::span<const float> frequencies, sinks;
};

/// A device that can run a block. Model code is written once against this interface; a call is a whole operation on a
/// whole batch, so it may be virtual. Tensors are f32 on the device unless said otherwise. One call at a time.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string_view name() const = 0;     // "cpu"
  virtual std::string_view kernels() const = 0;  // "avx2"
  virtual int threads() const = 0;
  /// Marks the blocks of a model that is about to be loaded for which this device has no memory (BlockSpec::on_host).
  /// Throws Error where it has too little for any, or for what was asked for.
  virtual void place(ModelSpec&, const MatrixOf&) {}
  /// What that came to, with its numbers; empty: all memory is the host's.
  virtual std::string placement() const { return {}; }
  /// Calls that follow are for blocks that are computed there, and so is x.
  virtual void enter([[maybe_unused]] bool on_host) {}
  virtual void enter(bool, Tensor&) {}
  /// Bytes of keys and values, the host's too, for which a device has memory beside what it works in. None: the host's.
  virtual std::optional<int64_t> kv_room(std::span<const BlockSpec>, DType) { return std::nullopt; }
  /// Measured now. None: kernels/ceilings.h measures the CPU.
  virtual std::optional<DeviceRates> rates() { return std::nullopt; }
  virtual Tensor empty(Shape shape) = 0;
  /// What x holds, where the host can read it: x itself, or a copy. Only it may read tensors of a device.
  virtual Tensor host(const Tensor& x) { return x; }

  /// For `repeat`; null where nothing is recorded.
  virtual std::unique_ptr<Recordings> recordings() { return nullptr; }
  /// pass(x), where nothing that `pass` calls depends on anything but `kind`, the number of the batch's sequences, of
  /// which each has one token, and their positions: a device may record it and replay it for other batches. The result
  /// holds until the next call.
  virtual Tensor repeat(Recordings*, [[maybe_unused]] int kind, Batch, const Tensor& x,
                        const std::function<Tensor(Tensor& x)>& pass) {
    Tensor own = x;
    return pass(own);
  }
  /// How many of the largest `top` can give; 0: nothing is gained by it, the host has all values.
  virtual int most_top() const { return 0; }
  /// The `count` largest of each row of x in falling order, of equals the first, f32 [rows, 2 count]: values, and
  /// behind them the bits of their places, int32. Places that are not below x's columns: so many are not finite.
  virtual Tensor top(const Tensor& x, [[maybe_unused]] int count) { return x; }

  /// `bias` may be null; else f32 [rows].
  virtual std::unique_ptr<Linear> linear(const Pieces& w, const Tensor* bias) = 0;
  std::unique_ptr<Linear> linear(const Weight& w, const Tensor* bias) { return linear(pieces_of(w), bias); }
  virtual int64_t linear_bytes(const Pieces& w) const = 0;  // of the result; reads none of them
  /// y[i] = f[i](x): layers of this backend that share an input, so that it is prepared once; `batch` as above.
  virtual void apply(std::span<const Linear* const> f, const Tensor& x, std::span<Tensor> y, int64_t batch) = 0;
  /// `dtype` is what keys and values are stored in: f32, f16, bf16, or i8 or f8_e4m3 with one scale a head and
  /// position. Arithmetic is f32.
  virtual std::unique_ptr<KvCache> kv_cache(std::span<const BlockSpec> blocks, DType dtype = DType::f32) = 0;

  /// x[t] = table[tokens[t]] * scale; table f32, f16 or bf16 [vocab, dim]
  virtual void embed(const Tensor& table, std::span<const int32_t> tokens, float scale, Tensor& x) = 0;
  /// Normalises each run of `width` in x; y may be x. gain and bias are f32 [width], or [row] where runs of a row have
  /// their own, or empty.
  virtual void norm(const Tensor& x, const Tensor& gain, const Tensor& bias, const NormSpec& norm, int64_t width,
                    Tensor& y) = 0;
  /// In place. x [tokens, heads * head_dim], of each head the channels from `first`; frequencies [dims / 2]; see
  /// RopeSpec::interleaved.
  virtual void rope(Tensor& x, Batch batch, std::span<const float> frequencies, int head_dim, int first,
                    bool interleaved) = 0;
  /// y [tokens, heads * (own + shared)]: each head's channels of `own` and then all of `shared`.
  virtual void join_heads(const Tensor& own, const Tensor& shared, int heads, Tensor& y) = 0;
  /// Stores k [tokens, kv_rows] and v [tokens, v_rows] in the caches of `block`, unless they are empty, then y [tokens,
  /// out_rows] = attention of q [tokens, q_rows] over all positions each token may see. sinks f32 [heads], or empty.
  virtual void attention(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const float> sinks, Batch batch,
                         int block, const AttentionSpec& spec, Tensor& y) = 0;
  /// norm, rope and attention of heads; q and k may be written over.
  virtual void heads(const HeadsInput& in, Batch batch, int block, const AttentionSpec& spec, Tensor& y);
  /// add, and then h = norm(x); h may be y.
  virtual void add_norm(const Tensor& y, float by, Tensor& x, const Tensor& gain, const Tensor& bias,
                        const NormSpec& spec, Tensor& h) {
    add(y, by, x);
    norm(x, gain, bias, spec, x.shape()[1], h);
  }
  /// y = down(act(gate) * up), or down(act(gate)) where `up` is null; gate may be written over.
  virtual void activated_product(Activation act, Tensor& gate, const Tensor* up, const Linear& down, Tensor& y,
                                 int64_t batch) {
    activate(act, gate, up, gate);
    down.multiply(gate, y, batch);
  }
  /// y [tokens, value_rows] of a delta net, before its norm; its states in the caches of `block` go on by the batch's
  /// tokens. A sequence that begins at 0 begins with an empty state; another must go on where its state is.
  virtual void delta(const DeltaInput& in, Batch batch, int block, const DeltaSpec& spec, Tensor& y) = 0;
  /// y = act(x), times `up` where it is not null; y may be x, or `up`.
  virtual void activate(Activation act, const Tensor& x, const Tensor* up, Tensor& y) = 0;
  /// See MlpSpec::limit. In place, `up` is written over.
  virtual void clamped_swish(Tensor& gate, Tensor& up, float alpha, float limit) = 0;
  virtual void add(const Tensor& x, float scale, Tensor& y) = 0;  // y += scale * x
  /// y[rows[i]] += weights[i] * x[i]; no row occurs twice
  virtual void add_rows(const Tensor& x, std::span<const int32_t> rows, std::span<const float> weights, Tensor& y) = 0;
  virtual void scale(Tensor& x, float by) = 0;
  virtual void zero(Tensor& x) = 0;
  virtual void clip(Tensor& x, float bound) = 0;    // to +-bound
  virtual void soft_cap(Tensor& x, float cap) = 0;  // x = cap * tanh(x / cap)
};

class ThreadPool;
namespace kernels {
struct KernelSet;
}
/// What activations are turned into for products with quantized weights: int16 (to 2^-16 of the largest of their
/// group), bf16 (rounded to bfloat16, and weights too where tiles multiply many tokens), int8 (half of the
/// multiplications, to 2^-8).
enum class Activations { int16, bf16, int8 };
Activations activations_of(std::string_view name);  // throws Error, listing the names; empty: int16

/// Products of many tokens on matrix tiles, where a kernel set has them. Accurate: activations for 16-bit matrices keep
/// 2^-18. Rough: they are rounded to bfloat16, 2^-9, and so are float16 matrices, for half of the work or less. Never:
/// what a token becomes does not depend on how many others are computed with it.
enum class Tiles { accurate, rough, never };

/// The CPU. Borrows the pool and the kernels, which the quantizer's own arithmetic uses too.
std::unique_ptr<Backend> cpu_backend(ThreadPool& pool, const kernels::KernelSet& kernels,
                                     Activations activations = Activations::int16, Tiles tiles = Tiles::accurate);

}  // namespace awq
