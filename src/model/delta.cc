#include "model/delta.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace awq {

DeltaStates::DeltaStates(std::span<const BlockSpec> blocks) : states_(blocks.size()) {
  for (const BlockSpec& b : blocks)
    if (b.delta) bytes_ += (b.delta->state() + b.delta->past()) * int64_t(sizeof(float));
}

int64_t DeltaStates::bytes() const {
  int64_t n = 0;
  for (const DeltaState& s : states_) n += s.bytes();
  return n;
}

void DeltaStates::unshare() {
  for (DeltaState& s : states_)
    if (s.heads) s.past = s.past.clone(), s.heads = s.heads.clone();
}

namespace {

constexpr float kLeastSquare = 1e-6f;  // is added to the square of a head's length; the published code's

/// A sequence goes on where its state is, or anew.
void begin_state(DeltaState& state, const Sequence& s, const DeltaSpec& spec) {
  if (s.first == 0) {
    state.past = Tensor::zeros({spec.kernel - 1, spec.channels()}, DType::f32);
    state.heads = Tensor::zeros({spec.value_heads, spec.key_dim, spec.value_dim}, DType::f32);
    state.positions = 0;
  }
  if (state.positions != s.first)
    fail("forward", "a delta net's state is behind {} tokens and cannot be run from token {}; begin at 0 again",
         state.positions, s.first);
  state.positions += s.tokens;
}

float* state_row(Tensor& t, int64_t row) { return t.as<float>().data() + row * t.shape()[1]; }
const float* state_row(const Tensor& t, int64_t row) { return t.as<float>().data() + row * t.shape()[1]; }

/// The convolution's inputs: those of earlier positions, and q, k and v of the sequence's tokens.
Tensor joined(const DeltaInput& in, const Tensor& past, int64_t row, int64_t tokens) {
  const int64_t before = past.shape()[0];
  Tensor all = Tensor::empty({before + tokens, past.shape()[1]}, DType::f32);
  std::ranges::copy(past.as<float>(), all.as<float>().begin());
  for (int64_t t = 0; t < tokens; ++t) {
    float* to = state_row(all, before + t);
    for (const Tensor* part : {&in.q, &in.k, &in.v}) to = std::copy_n(state_row(*part, row + t), part->shape()[1], to);
  }
  return all;
}

void to_length(float* x, int64_t n, float length) {
  double squares = double(kLeastSquare);
  for (int64_t i = 0; i < n; ++i) squares += double(x[i]) * double(x[i]);
  const auto by = float(double(length) / std::sqrt(squares));
  for (int64_t i = 0; i < n; ++i) x[i] *= by;
}

class DeltaJob {
 public:
  DeltaJob(const kernels::KernelSet& kernels, const DeltaInput& in, const DeltaSpec& spec, Tensor& y)
      : kernels_(kernels), in_(in), spec_(spec), y_(y) {}

  /// y's rows of the convolution of x's, which begin kernel - 1 before them; with heads of q and k of their lengths.
  void convolve(const Tensor& x, int64_t t, Tensor& to) const {
    const int64_t channels = spec_.channels(), taps = spec_.kernel;
    const float* w = in_.conv.as<float>().data();
    float* out = state_row(to, t);
    std::fill_n(out, channels, 0.f);
    for (int64_t i = 0; i < taps; ++i) {
      const float* from = state_row(x, t + i);
      for (int64_t c = 0; c < channels; ++c) out[c] += w[c * taps + i] * from[c];
    }
    kernels_.silu_mul(out, nullptr, out, channels);
    const float shrunk = 1 / std::sqrt(float(spec_.key_dim));
    for (int64_t h = 0; h < 2 * spec_.key_heads; ++h)
      to_length(out + h * spec_.key_dim, spec_.key_dim, h < spec_.key_heads ? shrunk : 1);
  }

  /// One value head over a sequence's tokens, whose first is the batch's `row`.
  void recur(const Tensor& mixed, int64_t row, int64_t tokens, int64_t head, DeltaState& state) const {
    const int64_t shared = head / (spec_.value_heads / spec_.key_heads), dim = spec_.value_dim;
    float* s = state.heads.as<float>().data() + head * spec_.key_dim * dim;
    std::vector<float> change(size_t(dim), 0.f);
    for (int64_t t = 0; t < tokens; ++t) {
      const float *q = state_row(mixed, t) + shared * spec_.key_dim, *k = q + spec_.key_rows(),
                  *v = state_row(mixed, t) + 2 * spec_.key_rows() + head * dim;
      decay(row + t, head, s);
      std::ranges::fill(change, 0.f);
      for (int64_t i = 0; i < spec_.key_dim; ++i) kernels_.add(s + i * dim, k[i], change.data(), dim);
      const float beta = 1 / (1 + std::exp(-state_row(in_.beta, row + t)[head]));
      for (int64_t c = 0; c < dim; ++c) change[size_t(c)] = beta * (v[c] - change[size_t(c)]);
      float* out = state_row(y_, row + t) + head * dim;
      std::fill_n(out, dim, 0.f);
      for (int64_t i = 0; i < spec_.key_dim; ++i) {
        kernels_.add(change.data(), k[i], s + i * dim, dim);
        kernels_.add(s + i * dim, q[i], out, dim);
      }
    }
  }

 private:
  void decay(int64_t row, int64_t head, float* s) const {
    const double x = double(state_row(in_.decay, row)[head]) + double(in_.decay_bias.as<float>()[size_t(head)]);
    const double softplus = std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
    const auto keep = float(std::exp(-std::exp(double(in_.decay_rate.as<float>()[size_t(head)])) * softplus));
    for (int64_t i = 0; i < int64_t(spec_.key_dim) * spec_.value_dim; ++i) s[i] *= keep;
  }

  const kernels::KernelSet& kernels_;
  const DeltaInput& in_;
  const DeltaSpec& spec_;
  Tensor& y_;
};

}  // namespace

void delta_rule(ThreadPool& pool, const kernels::KernelSet& kernels, const DeltaInput& in, Batch batch, int block,
                const DeltaSpec& spec, Tensor& y) {
  const DeltaJob job(kernels, in, spec, y);
  int64_t row = 0;
  std::vector<Tensor> mixed;
  std::vector<int64_t> rows;
  for (const Sequence& s : batch) {
    DeltaState& state = s.kv->delta(block);
    begin_state(state, s, spec);
    const Tensor x = joined(in, state.past, row, s.tokens);
    Tensor& to = mixed.emplace_back(Tensor::empty({s.tokens, spec.channels()}, DType::f32));
    pool.run(s.tokens, 1, [&](int64_t b, int64_t e) {
      for (int64_t t = b; t < e; ++t) job.convolve(x, t, to);
    });
    state.past = x.rows(s.tokens, s.tokens + spec.kernel - 1).clone();
    rows.push_back(row);
    row += s.tokens;
  }
  pool.each(int64_t(batch.size()) * spec.value_heads, [&](int64_t i) {
    const auto n = size_t(i / spec.value_heads);
    job.recur(mixed[n], rows[n], batch[n].tokens, i % spec.value_heads, batch[n].kv->delta(block));
  });
}

}  // namespace awq
