#pragma once
#include <functional>
#include <map>
#include <memory>

#include "model/backend.h"

namespace awq {

/// A norm's parameters, f32 [channels]; a norm without gains has an empty tensor, as has one without a bias.
struct NormWeights {
  Tensor gain, bias;
};

/// Factors of a matrix that are applied by who reads it: w * columns[c] / rows[r] in f32. Empty: none.
struct Factors {
  std::vector<float> columns, rows;
};

/// What makes the vectors that tokens bring for one block (OwnInputSpec). Tables f32, f16 or bf16, on the host.
struct OwnInput {
  OwnInputSpec spec;
  int block = 0, blocks = 0;  // its number, of so many
  Tensor embed, rows;         // [vocab, dim], [vocab * blocks, width]: a token has a row for each block
  Tensor projection, gain;    // [width, dim], f32 [width]
};

/// Host-side parameters of one block: what the quantizer reads, scales and rounds. Matrices stay as they are stored.
struct BlockWeights {
  BlockSpec spec;
  std::map<Param, Weight> at;             // matrices [out, in] f32, f16 or bf16; norms f32 [channels]
  std::map<Param, Tensor> bias;           // f32 [out], of matrices and norms
  int index = 0;                          // of the block in its model
  std::map<Param, Factors> factors = {};  // what fold() did to matrices
  std::optional<OwnInput> own = {};
  const Tensor& tensor(Param p) const { return std::get<Tensor>(at.at(p)); }
  Tensor& tensor(Param p) { return std::get<Tensor>(at.at(p)); }
  /// Rows [first, first + count) of a matrix as f32, factors applied.
  void read_rows(Param p, int64_t first, int64_t count, float* to) const;
  /// The whole matrix: f32 with factors applied, or as it is stored where it has none.
  Pieces pieces(Param p) const;
};

/// Device-side parameters of one block: what the engine runs. Copies share the weights.
struct Block {
  BlockSpec spec;
  std::map<Param, NormWeights> norm;
  std::map<Param, std::shared_ptr<const Linear>> linear;
  std::vector<float> correction{};  // of the router's scores, see ExpertsSpec
  std::vector<float> rope;          // frequencies
  std::optional<DType> type{};      // of all matrices, where upload() was asked for one
  std::optional<OwnInput> own{};    // its projection is in `linear`
  const Linear& operator[](Param p) const { return *linear.at(p); }
  const Linear& operator[](Role role) const { return *linear.at({role}); }
};
/// `type`: of all matrices, say f32, so that two blocks' outputs differ by f32 rounding alone; none: as they are
/// stored, or f32 where they have factors.
Block upload(Backend& dev, const BlockWeights& w, std::optional<DType> type = {});

/// Sees the input of each linear layer, once for those that share it. x [tokens, channels]; `rows`: which tokens of the
/// batch its rows are, where they are not all of them.
using Tap = std::function<void(Site site, const Tensor& x, std::span<const int32_t> rows)>;

/// What a block reads beside x, a row a token; of keys and values also what it leaves for others.
struct Beside {
  Tensor own;           // [tokens, own_width]
  Tensor keys, values;  // as caches hold them. Empty where a block borrows them: they are in the cache already
};

/// Where the attention's input is seen.
Site attention_input(const BlockSpec& spec);
/// Whether the group reads what a norm before the attention or the MLP puts out, so that a module can be run on it.
bool reads_module_input(const BlockSpec& spec, const ScaleGroup& g);

/// y = attention of normalised input x, without norm and residual: the module that q, k and v feed.
void attention_forward(Backend& dev, const Block& block, Batch batch, int kv_block, const Tensor& x, Tensor& y,
                       const Tap& tap = {}, Beside* beside = nullptr);
/// y = one MLP of normalised input x, whose rows are some tokens of a batch.
void expert_forward(Backend& dev, const Block& block, int expert, const Tensor& x, Tensor& y, int64_t batch,
                    const Tap& tap = {}, std::span<const int32_t> rows = {});
/// y = MLP, or mixture of MLPs, of normalised input x: the module that gate and up feed. Not of a mixture that is
/// apart.
void mlp_forward(Backend& dev, const Block& block, const Tensor& x, Tensor& y, const Tap& tap = {});
/// x += attention(norm(x)); x += mlp(norm(x)); or as `placement` and `parallel` say. The single definition of what a
/// block computes: calibration, evaluation and generation all come through here. `kv_block` is the block's place in the
/// caches; of one that borrows keys, the place of the block that made them.
void block_forward(Backend& dev, const Block& block, Batch batch, int kv_block, Tensor& x, const Tap& tap = {},
                   Beside* beside = nullptr);
/// What the tokens bring for the block, [tokens, own_width]; empty where it reads nothing of the kind.
Tensor own_input(Backend& dev, const Block& block, std::span<const int32_t> tokens);

/// Divides the producer by `s` and multiplies the consumers' columns by it; s has one value a channel of the consumers'
/// input (equal within tied heads). The group must have a producer. Of matrices only `factors` change.
void fold(BlockWeights& w, const ScaleGroup& group, std::span<const float> s);

/// What tokens become on their way to the first block. Tables f32, f16 or bf16.
struct Embedding {
  Tensor table, positions;  // [vocab, dim], and [learned_positions, dim] or empty
  NormWeights norm;
};
/// The first block's input x [tokens, dim].
Tensor embed_forward(Backend& dev, const ModelSpec& spec, const Embedding& embed, std::span<const int32_t> tokens,
                     Batch batch);

/// What follows the table: x += positions' rows, and the norm, where the model has them.
void embed_places(Backend& dev, const ModelSpec& spec, const Embedding& embed, Batch batch, Tensor& x);

/// A model ready to run.
struct Model {
  ModelSpec spec;
  Embedding embed;
  std::vector<Block> blocks;
  NormWeights final_norm;
  std::shared_ptr<const Linear> head;
  std::shared_ptr<Recordings> recordings{};  // the backend's, of its passes over single tokens; or null
  int64_t bytes_per_token() const;           // weights read to decode one token
};
/// The last block's output to what the head reads, in place.
void final_norm_forward(Backend& dev, const Model& m, Tensor& x);
/// Tokens (rows in the batch's order) to the last hidden states, normalised: [tokens, dim].
Tensor hidden_forward(Backend& dev, const Model& m, std::span<const int32_t> tokens, Batch batch);
/// What follows the last hidden states, as a pass over single tokens may have it recorded: see Backend::repeat.
struct PassEnd {
  int kind = 0;  // of what it does; 0: nothing
  std::function<Tensor(const Tensor& hidden)> make{};
};
/// `end` of the hidden states of one token of each sequence. Where a device records passes, and this model's depend on
/// positions alone, it is replayed. The result holds until the next call.
Tensor step_forward(Backend& dev, const Model& m, std::span<const int32_t> tokens, Batch batch, const PassEnd& end);

}  // namespace awq
