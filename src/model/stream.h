#pragma once
#include "model/block.h"

namespace awq {

// A model that is run block by block, each over all tokens, hands a row a token from block to block, f32 on the host:
// x, and behind it what later blocks read beside it (Beside). That is the token's number, where blocks have vectors for
// each, exact in f32 up to 2^24, and keys and values of blocks that others borrow from, once these have run.

/// Channels of a row: dim, where blocks read nothing but x.
int64_t stream_width(const ModelSpec& spec);
/// Rows that begin with x [tokens, dim]; x itself where that is all.
Tensor stream_of(const ModelSpec& spec, const Tensor& x, std::span<const int32_t> tokens);
/// x of each row.
Tensor hidden_of(const Tensor& stream, int dim);
/// A cache for a block that runs alone: one that borrows keys is given them.
std::unique_ptr<KvCache> cache_alone(Backend& dev, const BlockSpec& spec, DType dtype = DType::f32);
/// What goes into a block becomes what goes into the next one.
void stream_forward(Backend& dev, const Block& block, Batch batch, Tensor& stream, const Tap& tap = {});

}  // namespace awq
