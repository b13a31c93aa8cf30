#include "quantizer/tape.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "base/check.h"
#include "quantizer/attention_gradient.h"

namespace awq {
namespace {

[[noreturn]] void no_gradient(std::string_view what) {
  fail("gradient", "{} has no gradient here; Tape::knows() says which blocks do", what);
}

/// of(i) for each value, on all threads.
template <class F>
Tensor made(const Host& host, const Shape& shape, const F& of) {
  Tensor t = Tensor::empty(shape, DType::f32);
  float* to = t.as<float>().data();
  host.pool.run(shape.elements(), 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) to[i] = of(size_t(i));
  });
  return t;
}

constexpr float kRoot = 0.79788456f;  // of 2 / pi

float slope_of(Activation act, float x) {
  const float sigmoid = 1 / (1 + std::exp(-x));
  switch (act) {
    case Activation::silu:
      return sigmoid * (1 + x * (1 - sigmoid));
    case Activation::sigmoid:
      return sigmoid * (1 - sigmoid);
    case Activation::relu:
      return x > 0 ? 1 : 0;
    case Activation::relu2:
      return x > 0 ? 2 * x : 0;
    case Activation::gelu:
      return 0.5f * (1 + std::erf(x / std::numbers::sqrt2_v<float>)) + x * std::exp(-x * x / 2) * kRoot / 2;
    case Activation::gelu_tanh: {
      const float t = std::tanh(kRoot * (x + 0.044715f * x * x * x));
      return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * kRoot * (1 + 3 * 0.044715f * x * x);
    }
    case Activation::clamped_swish:
      break;
  }
  no_gradient("this activation");
}

/// The gradient by a run x of a norm's input; `g` is that by the norm's output, times the gains. With r the root's
/// inverse and h = r x, of x less its mean in layer norms: r (g - h mean(h g)), less its mean there.
void norm_gradient(const NormSpec& norm, const float* x, const float* g, int64_t n, float* out) {
  const bool layer = norm.kind == NormKind::layer;
  double mean = 0, square = 0, product = 0, sum = 0;
  for (int64_t i = 0; layer && i < n; ++i) mean += double(x[i]) / double(n);
  for (int64_t i = 0; i < n; ++i) {
    const double v = double(x[i]) - mean;
    square += v * v;
    product += v * double(g[i]);
    sum += layer ? double(g[i]) : 0;
  }
  const double r = 1 / std::sqrt(square / double(n) + double(norm.eps)), back = r * r * product / double(n);
  for (int64_t i = 0; i < n; ++i) out[i] = float(r * (double(g[i]) - sum / double(n) - (double(x[i]) - mean) * back));
}

Tensor times_gains(const Host& host, const Tensor& g, const Tensor& gain, float offset) {
  const auto in = g.as<float>(), gains = gain.as<float>();
  return made(host, g.shape(), [=](size_t i) { return in[i] * (gains[i % gains.size()] + offset); });
}

/// T: any type of as many bytes as the values have.
template <class T>
void transpose(const Tensor& from, Tensor& to, ThreadPool& pool) {
  constexpr int64_t kTile = 64;  // columns that become rows together: what is written stays in the cache
  const int64_t rows = from.shape()[0], cols = from.shape()[1];
  const T* in = reinterpret_cast<const T*>(from.data());
  T* out = reinterpret_cast<T*>(to.data());
  pool.run((cols + kTile - 1) / kTile, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = begin * kTile; c < std::min(cols, end * kTile); ++c) out[c * rows + r] = in[r * cols + c];
  });
}

Pieces transposed(const Pieces& w, ThreadPool& pool) {
  if (!std::holds_alternative<DType>(w.type)) fail("gradient", "codes have no transpose here; give floats");
  const Tensor from = whole(w, pool);
  Tensor to = Tensor::empty({from.shape()[1], from.shape()[0]}, from.dtype());
  if (size_of(from.dtype()) == sizeof(float))
    transpose<float>(from, to, pool);
  else
    transpose<uint16_t>(from, to, pool);
  return pieces_of(Weight(to));
}

}  // namespace

/// Gradients by values, of those that have one so far.
class Tape::Gradients {
 public:
  explicit Gradients(int values) : all_(size_t(values)) {}
  void add(int value, Tensor g) {
    Tensor& sum = all_[size_t(value)];
    if (!sum) {
      sum = std::move(g);
      return;
    }
    const auto to = sum.as<float>(), more = g.as<float>();
    for (size_t i = 0; i < to.size(); ++i) to[i] += more[i];
  }
  Tensor take(int value) { return std::move(all_[size_t(value)]); }

 private:
  std::vector<Tensor> all_;
};

struct Tape::Step {
  int value;
  Back back;
};

class Tape::Layer final : public Linear {
 public:
  Layer(Tape& tape, std::unique_ptr<Linear> forward, std::unique_ptr<Linear> back)
      : tape_(tape), forward_(std::move(forward)), back_(std::move(back)) {}
  void multiply(const Tensor& x, Tensor& y, int64_t batch) const override {
    forward_->multiply(x, y, batch);
    tape_.multiplied(*this, x, y);
  }
  int64_t rows() const override { return forward_->rows(); }
  int64_t bytes() const override { return forward_->bytes(); }
  DType arithmetic(int64_t tokens) const override { return forward_->arithmetic(tokens); }
  const Linear* forward() const { return forward_.get(); }
  Tensor back(const Tensor& gradient) const {
    Tensor g = tape_.inner_.empty({gradient.shape()[0], back_->rows()});
    (*back_)(gradient, g);
    return g;
  }

 private:
  Tape& tape_;
  std::unique_ptr<Linear> forward_, back_;
};

Tape::Tape(Backend& inner, const Host& host) : inner_(inner), host_(host) {}
Tape::~Tape() = default;

bool Tape::knows(const BlockSpec& spec) {
  return !spec.experts && !spec.delta && !spec.own_width && !spec.shared_keys && !spec.attention.sinks &&
         spec.mlp.act != Activation::clamped_swish;
}

void Tape::begin(const Tensor& x) {
  held_.clear();
  steps_.clear();
  values_ = 0;
  begun_ = holds(x);
}

Tensor Tape::back(const Tensor& y, const Tensor& gradient, const Seen& seen) const {
  Gradients g(values_);
  g.add(held_.at(y.data()), gradient.clone());
  for (auto step = steps_.rbegin(); step != steps_.rend(); ++step)
    if (const Tensor by = g.take(step->value)) step->back(by, g, seen);
  Tensor first = g.take(begun_);
  if (!first) fail("gradient", "what was computed does not depend on where it began");
  return first;
}

int Tape::holds(const Tensor& x) {
  const auto [at, isnew] = held_.try_emplace(x.data(), values_);
  if (isnew) ++values_;
  return at->second;
}

void Tape::computed(const Tensor& y, Back back) {
  held_[y.data()] = values_;
  steps_.push_back({values_++, std::move(back)});
}

std::unique_ptr<Linear> Tape::linear(const Pieces& w, const Tensor* bias) {
  return std::make_unique<Layer>(*this, inner_.linear(w, bias), inner_.linear(transposed(w, host_.pool), nullptr));
}

void Tape::multiplied(const Layer& f, const Tensor& x, const Tensor& y) {
  const int from = holds(x);
  computed(y, [&f, from](const Tensor& g, Gradients& to, const Seen& seen) {
    if (seen) seen(f, g);
    to.add(from, f.back(g));
  });
}

void Tape::apply(std::span<const Linear* const> f, const Tensor& x, std::span<Tensor> y, int64_t batch) {
  std::vector<const Linear*> inner;
  for (const Linear* l : f) inner.push_back(static_cast<const Layer*>(l)->forward());
  inner_.apply(inner, x, y, batch);
  for (size_t i = 0; i < f.size(); ++i) multiplied(*static_cast<const Layer*>(f[i]), x, y[i]);
}

void Tape::norm(const Tensor& x, const Tensor& gain, const Tensor& bias, const NormSpec& norm, int64_t width,
                Tensor& y) {
  const int from = holds(x);
  const Tensor before = x.clone();
  inner_.norm(x, gain, bias, norm, width, y);
  computed(y, [this, from, before, gain, norm, width](const Tensor& g, Gradients& to, const Seen&) {
    const Tensor scaled = gain ? times_gains(host_, g, gain, norm.gain_offset) : g;
    Tensor out = Tensor::empty(g.shape(), DType::f32);
    host_.pool.run(g.shape().elements() / width, 1, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r)
        norm_gradient(norm, before.as<float>().data() + r * width, scaled.as<float>().data() + r * width, width,
                      out.as<float>().data() + r * width);
    });
    to.add(from, out);
  });
}

// A rotation's transpose is the rotation back.
void Tape::rope(Tensor& x, Batch batch, std::span<const float> frequencies, int head_dim, int first, bool interleaved) {
  const int from = holds(x);
  inner_.rope(x, batch, frequencies, head_dim, first, interleaved);
  std::vector<float> opposite(frequencies.begin(), frequencies.end());
  for (float& f : opposite) f = -f;
  computed(x, [this, from, sequences = std::vector<Sequence>(batch.begin(), batch.end()), opposite, head_dim, first,
               interleaved](const Tensor& g, Gradients& to, const Seen&) {
    Tensor turned = g.clone();
    inner_.rope(turned, sequences, opposite, head_dim, first, interleaved);
    to.add(from, turned);
  });
}

void Tape::join_heads(const Tensor& own, const Tensor& shared, int heads, Tensor& y) {
  const int first = holds(own), second = holds(shared);
  const int64_t part = own.shape()[1] / heads, rest = shared.shape()[1], tokens = y.shape()[0];
  inner_.join_heads(own, shared, heads, y);
  computed(y, [=](const Tensor& g, Gradients& to, const Seen&) {
    Tensor a = Tensor::empty({tokens, part * heads}, DType::f32), b = Tensor::zeros({tokens, rest}, DType::f32);
    const float* from = g.as<float>().data();
    for (int64_t i = 0; i < tokens * heads; ++i, from += part + rest) {
      std::copy_n(from, part, a.as<float>().data() + i * part);
      for (int64_t c = 0; c < rest; ++c) b.as<float>()[size_t(i / heads * rest + c)] += from[part + c];
    }
    to.add(first, a);
    to.add(second, b);
  });
}

void Tape::attention(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const float> sinks, Batch batch,
                     int block, const AttentionSpec& spec, Tensor& y) {
  if (!k) no_gradient("attention to another block's keys");
  if (!sinks.empty()) no_gradient("attention with sinks");
  AttentionInputs in{q.clone(), k.clone(), v.clone(), {}, spec};
  for (const Sequence& s : batch) {
    if (s.first) fail("gradient", "a sequence begins at position {}: keys of earlier ones are not here", s.first);
    in.lengths.push_back(s.tokens);
  }
  const std::array from = {holds(q), holds(k), holds(v)};
  inner_.attention(q, k, v, sinks, batch, block, spec, y);
  computed(y, [this, from, in = std::move(in)](const Tensor& g, Gradients& to, const Seen&) {
    AttentionGradients by = attention_gradients(host_, in, g);
    to.add(from[0], by.q);
    to.add(from[1], by.k);
    to.add(from[2], by.v);
  });
}

// y = act(x) * up: the gradient by up is act(x), which is not kept but computed again.
void Tape::activate(Activation act, const Tensor& x, const Tensor* up, Tensor& y) {
  const int from = holds(x), from_up = up ? holds(*up) : -1;
  const Tensor before = x.clone(), before_up = up ? up->clone() : Tensor();
  inner_.activate(act, x, up, y);
  computed(y, [this, act, from, from_up, before, before_up](const Tensor& g, Gradients& to, const Seen&) {
    const auto by = g.as<float>(), in = before.as<float>();
    if (!before_up) return to.add(from, made(host_, g.shape(), [=](size_t i) { return by[i] * slope_of(act, in[i]); }));
    const auto times = before_up.as<float>();
    to.add(from, made(host_, g.shape(), [=](size_t i) { return by[i] * times[i] * slope_of(act, in[i]); }));
    Tensor active = inner_.empty(g.shape());
    inner_.activate(act, before, nullptr, active);
    const auto factor = std::as_const(active).as<float>();
    to.add(from_up, made(host_, g.shape(), [=](size_t i) { return by[i] * factor[i]; }));
  });
}

void Tape::add(const Tensor& x, float scale, Tensor& y) {
  const int from = holds(x), before = holds(y);
  inner_.add(x, scale, y);
  computed(y, [this, from, before, scale](const Tensor& g, Gradients& to, const Seen&) {
    const auto by = g.as<float>();
    to.add(from, made(host_, g.shape(), [=](size_t i) { return by[i] * scale; }));
    to.add(before, g.clone());
  });
}

template <class F>
void Tape::mapped(const Tensor& before, int from, const Tensor& y, const F& slope) {
  computed(y, [this, before, from, slope](const Tensor& g, Gradients& to, const Seen&) {
    const auto by = g.as<float>(), in = before.as<float>();
    to.add(from, made(host_, g.shape(), [=](size_t i) { return by[i] * slope(in[i]); }));
  });
}

void Tape::scale(Tensor& x, float by) {
  const int from = holds(x);
  inner_.scale(x, by);
  mapped(x, from, x, [by](float) { return by; });
}

void Tape::clip(Tensor& x, float bound) {
  const int from = holds(x);
  const Tensor before = x.clone();
  inner_.clip(x, bound);
  mapped(before, from, x, [bound](float v) { return std::abs(v) <= bound ? 1.f : 0.f; });
}

void Tape::soft_cap(Tensor& x, float cap) {
  const int from = holds(x);
  const Tensor before = x.clone();
  inner_.soft_cap(x, cap);
  mapped(before, from, x, [cap](float v) {
    const float t = std::tanh(v / cap);
    return 1 - t * t;
  });
}

void Tape::embed(const Tensor&, std::span<const int32_t>, float, Tensor&) { no_gradient("a table"); }
void Tape::delta(const DeltaInput&, Batch, int, const DeltaSpec&, Tensor&) { no_gradient("a delta net"); }
void Tape::clamped_swish(Tensor&, Tensor&, float, float) { no_gradient("a bounded swish"); }
void Tape::add_rows(const Tensor&, std::span<const int32_t>, std::span<const float>, Tensor&) {
  no_gradient("a mixture of experts");
}
void Tape::zero(Tensor&) { no_gradient("a mixture of experts"); }

}  // namespace awq
