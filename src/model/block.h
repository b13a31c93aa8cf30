#pragma once
#include <functional>
#include <map>
#include <memory>

#include "model/backend.h"

namespace awq {

/// Factors of a matrix that are applied by who reads it: w * columns[c] / rows[r] in f32. Empty: none.
struct Factors {
  std::vector<float> columns, rows;
};

/// Host-side parameters of one block: what the quantizer reads, scales and rounds. Matrices stay as they are stored.
struct BlockWeights {
  BlockSpec spec;
  std::map<Param, Weight> at;             // matrices [out, in] f32, f16 or bf16; norms f32 [channels]
  std::map<Param, Tensor> bias;           // f32 [out]
  int index = 0;                          // of the block in its model
  std::map<Param, Factors> factors = {};  // what fold() did to matrices
  const Tensor& tensor(Param p) const { return std::get<Tensor>(at.at(p)); }
  Tensor& tensor(Param p) { return std::get<Tensor>(at.at(p)); }
  /// Rows [first, first + count) of a matrix as f32, factors applied.
  void read_rows(Param p, int64_t first, int64_t count, float* to) const;
  /// The whole matrix: f32 with factors applied, or as it is stored where it has none and is not wanted `wide`.
  Pieces pieces(Param p, bool wide = false) const;
};

/// Device-side parameters of one block: what the engine runs. Copies share the weights.
struct Block {
  BlockSpec spec;
  std::map<Param, Tensor> norm;
  std::map<Param, std::shared_ptr<const Linear>> linear;
  std::vector<float> rope;  // frequencies
  const Linear& operator[](Role role) const { return *linear.at({role}); }
};
/// `wide`: all matrices in f32, so that two blocks' outputs differ by f32 rounding alone.
Block upload(Backend& dev, const BlockWeights& w, bool wide = false);

/// Sees the input of each linear layer, once for those that share it. x [tokens, channels]
using Tap = std::function<void(Site site, const Tensor& x)>;

/// y = attention of normalised input x, without norm and residual: the module that q, k and v feed.
void attention_forward(Backend& dev, const Block& block, Batch batch, int kv_block, const Tensor& x, Tensor& y,
                       const Tap& tap = {});
/// y = MLP of normalised input x: the module that gate and up feed.
void mlp_forward(Backend& dev, const Block& block, const Tensor& x, Tensor& y, const Tap& tap = {});
/// x += attention(norm(x)); x += mlp(norm(x)). The single definition of what a block computes: calibration, evaluation
/// and generation all come through here. `kv_block` is the block's place in the caches.
void block_forward(Backend& dev, const Block& block, Batch batch, int kv_block, Tensor& x, const Tap& tap = {});

/// Divides the producer by `s` and multiplies the consumers' columns by it; s has one value a channel of the consumers'
/// input (equal within tied heads). Of matrices only `factors` change.
void fold(BlockWeights& w, const ScaleGroup& group, std::span<const float> s);

/// A model ready to run.
struct Model {
  ModelSpec spec;
  Tensor embed;
  std::vector<Block> blocks;
  Tensor final_norm;
  std::shared_ptr<const Linear> head;
  int64_t bytes_per_token() const;  // weights read to decode one token
};
/// Tokens (rows in the batch's order) to the last hidden states, normalised: [tokens, dim].
Tensor hidden_forward(Backend& dev, const Model& m, std::span<const int32_t> tokens, Batch batch);

}  // namespace awq
