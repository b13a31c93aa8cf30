#pragma once
#include "model/block.h"
#include "quantizer/host.h"

namespace awq {

/// A backend that remembers what was computed of one tensor, so that a gradient can go back through it: reverse-mode
/// differentiation (Griewank and Walther, "Evaluating Derivatives", 2008). A block that was uploaded to it runs as it
/// does anywhere, with the arithmetic of `inner`, whose tensors the host must be able to read; each matrix is there
/// twice, the second time transposed. Dense blocks only, without a delta net, that read nothing but x and leave nothing
/// for others; sequences from their first position. One call at a time.
class Tape final : public Backend {
 public:
  Tape(Backend& inner, const Host& host);
  ~Tape() override;

  static bool knows(const BlockSpec& spec);  // how to go back through such a block

  /// Forgets what was, and remembers what is computed of x, f32 [tokens, dim], from here on.
  void begin(const Tensor& x);
  /// Sees the gradient by the output of each linear layer of this backend, before its bias is of any matter.
  using Seen = std::function<void(const Linear&, const Tensor& gradient)>;
  /// The gradient by what x held at begin(), of what has `gradient` by what y, which was computed since and may be x
  /// itself, holds now. Any number of gradients.
  Tensor back(const Tensor& y, const Tensor& gradient, const Seen& seen = {}) const;

  std::string_view name() const override { return inner_.name(); }
  std::string_view kernels() const override { return inner_.kernels(); }
  int threads() const override { return inner_.threads(); }
  Tensor empty(Shape shape) override { return inner_.empty(shape); }
  std::unique_ptr<Linear> linear(const Pieces& w, const Tensor* bias) override;
  int64_t linear_bytes(const Pieces& w) const override { return 2 * inner_.linear_bytes(w); }
  void apply(std::span<const Linear* const> f, const Tensor& x, std::span<Tensor> y, int64_t batch) override;
  std::unique_ptr<KvCache> kv_cache(std::span<const BlockSpec> blocks, DType dtype) override {
    return inner_.kv_cache(blocks, dtype);
  }
  void embed(const Tensor& table, std::span<const int32_t> tokens, float scale, Tensor& x) override;
  void norm(const Tensor& x, const Tensor& gain, const Tensor& bias, const NormSpec& norm, int64_t width,
            Tensor& y) override;
  void rope(Tensor& x, Batch batch, std::span<const float> frequencies, int head_dim, int first,
            bool interleaved) override;
  void join_heads(const Tensor& own, const Tensor& shared, int heads, Tensor& y) override;
  void attention(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const float> sinks, Batch batch,
                 int block, const AttentionSpec& spec, Tensor& y) override;
  void delta(const DeltaInput& in, Batch batch, int block, const DeltaSpec& spec, Tensor& y) override;
  void activate(Activation act, const Tensor& x, const Tensor* up, Tensor& y) override;
  void clamped_swish(Tensor& gate, Tensor& up, float alpha, float limit) override;
  void add(const Tensor& x, float scale, Tensor& y) override;
  void add_rows(const Tensor& x, std::span<const int32_t> rows, std::span<const float> weights, Tensor& y) override;
  void scale(Tensor& x, float by) override;
  void zero(Tensor& x) override;
  void clip(Tensor& x, float bound) override;
  void soft_cap(Tensor& x, float cap) override;

 private:
  class Gradients;
  class Layer;
  struct Step;
  using Back = std::function<void(const Tensor& gradient, Gradients& to, const Seen& seen)>;

  int holds(const Tensor& x);  // the value that x holds
  /// `y` holds a new value, of others.
  void computed(const Tensor& y, Back back);
  void multiplied(const Layer& f, const Tensor& x, const Tensor& y);
  /// y = f(x) value by value; `slope(x)` is f's.
  template <class F>
  void mapped(const Tensor& before, int x, const Tensor& y, const F& slope);

  Backend& inner_;
  Host host_;
  std::map<const void*, int> held_;  // by the place of each tensor
  std::vector<Step> steps_;
  int values_ = 0, begun_ = -1;
};

}  // namespace awq
