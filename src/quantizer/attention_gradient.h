#pragma once
#include "model/backend.h"
#include "quantizer/host.h"

namespace awq {

/// What attention without sinks was computed of: q, k and v as Backend::attention has them, of whole sequences from
/// their first position.
struct AttentionInputs {
  Tensor q, k, v;
  std::vector<int> lengths;  // of the sequences, one behind the other
  AttentionSpec spec;
};

/// Gradients by q, k and v of what has the gradient `y` [tokens, out_rows] by the attention's output.
struct AttentionGradients {
  Tensor q, k, v;
};
/// The same for any number of threads.
AttentionGradients attention_gradients(const Host& host, const AttentionInputs& in, const Tensor& y);

}  // namespace awq
