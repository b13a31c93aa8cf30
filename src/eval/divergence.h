#pragma once
#include <functional>
#include <span>
#include <vector>

#include "base/parallel.h"
#include "kernels/kernels.h"
#include "model/block.h"

namespace awq {

/// One prediction. Likeliest tokens are -1 where there is no original.
struct TokenScore {
  double nll = 0;
  double kl = 0, reverse_kl = 0;        // KL(original || model), KL(model || original) in nats
  int32_t original_top = -1, top = -1;  // likeliest tokens
  bool in_top5 = false;                 // the original's likeliest is one of the model's five
  bool same_top() const { return original_top == top; }
};
/// One window of text seen by a model: means over its predictions.
struct WindowScore {
  double nll = 0, kl = 0, reverse_kl = 0;
  double top1 = 0, top5 = 0;         // shares of same_top and in_top5
  std::vector<TokenScore> tokens{};  // each of length - 1 predictions
};

/// Scores windows of a text. Hidden states and logits are f32; a window's logits exist for a few hundred positions at a
/// time.
class Scorer {
 public:
  /// `kv`: what keys and values are kept in.
  Scorer(ThreadPool& pool, const kernels::KernelSet& kernels, Backend& dev, const Model& model, DType kv)
      : pool_(pool), kernels_(kernels), dev_(dev), model_(model), kv_(kv) {}
  /// Last hidden states [window - 1, dim] of the positions that predict.
  Tensor hidden(std::span<const int32_t> window) const;
  /// `original` and its hidden states may be null: then only nll is set.
  WindowScore score(std::span<const int32_t> window, const Tensor& hidden, const Model* original,
                    const Tensor* original_hidden) const;
  /// Against an original whose logits [window - 1, vocab] are known.
  WindowScore score(std::span<const int32_t> window, const Tensor& hidden, const Tensor& original_logits) const;

 private:
  /// The original's logits of positions [begin, end); none where `reference` is empty.
  using Reference = std::function<Tensor(int64_t begin, int64_t end)>;
  WindowScore score_against(std::span<const int32_t> window, const Tensor& hidden, const Reference& reference) const;

  ThreadPool& pool_;
  const kernels::KernelSet& kernels_;
  Backend& dev_;
  const Model& model_;
  DType kv_;
};

}  // namespace awq
