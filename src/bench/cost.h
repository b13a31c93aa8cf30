#pragma once
#include <memory>

#include "formats/format.h"

namespace awq {

/// Bytes of a weight as checkpoints hold it: a QMatrix has its codes, and for each group a scale of its type and a zero
/// point of as many bits as a code (4-bit groups of 128: 4.156 bits a weight). What a backend reads may be more.
int64_t stored_bytes(const Weight& w);
int64_t stored_bytes(const Pieces& w);

/// What a model must read and compute to run, whatever the program that runs it.
struct Cost {
  ModelSpec spec;
  DType kv = DType::f16;  // type of cached keys and values
  int64_t weights =
      0;  // bytes of every weight, norm and bias but the embedding table; of that too where it is the head
  int64_t embed_row = 0;  // bytes of one token's embedding

  /// Keys and values that the token at `position` sees, its own included, in all blocks; windows bound them. Of a delta
  /// net its state, in f32.
  int64_t kv_bytes(int64_t position) const;
  /// Bytes of one decode step: every weight once, and an embedding and a cache for each of `batch` sequences.
  int64_t decode_bytes(int64_t position, int64_t batch) const;
  /// Bytes of a prompt: every weight once, its embeddings, and the cache it leaves once.
  int64_t prefill_bytes(int64_t tokens) const;

  /// Operations, a multiplication and an addition for each weight and token; a prompt needs its last logits only.
  double decode_flops(int64_t batch) const;
  double prefill_flops(int64_t tokens) const;
  /// Operations of q k^T and p v for tokens at positions [first, first + tokens) of one sequence: four for each query
  /// head, its channels, and position seen; seven for each value of a delta net's state.
  double attention_flops(int64_t first, int64_t tokens) const;

 private:
  double layer_weights() const;
  double head_weights() const { return double(spec.vocab) * spec.dim; }
};

/// Passes a model on and adds up what of it is asked for, as load_model does once for everything.
class CountedCheckpoint final : public Checkpoint {
 public:
  explicit CountedCheckpoint(const Checkpoint& model) : model_(model) {}
  Cost cost(DType kv) const;

  std::string_view format() const override { return model_.format(); }
  const nlohmann::json& config() const override { return model_.config(); }
  const ModelSpec& spec() const override { return model_.spec(); }
  std::string described_in() const override { return model_.described_in(); }
  std::vector<TensorInfo> tensors() const override { return model_.tensors(); }
  std::vector<SideFile> side_files() const override { return model_.side_files(); }
  Weight weight(int block, Param p) const override;
  Pieces pieces(int block, Param p) const override;
  Tensor bias(int block, Param p) const override;

 private:
  void count(Param p, int64_t bytes) const;
  const Checkpoint& model_;
  mutable int64_t rest_ = 0, embed_ = 0, own_ = 0, head_ = 0;  // bytes
};

}  // namespace awq
