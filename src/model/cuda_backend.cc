#include "model/cuda_backend.h"

#include <algorithm>
#include <chrono>
#include <tuple>

#include "base/numeric.h"
#include "kernels/registry.h"
#include "model/backend_parts.h"
#include "model/cuda_attention.h"
#include "model/cuda_steps.h"

namespace awq {
namespace {

cuda::Half half_of(std::string_view activations) {
  if (activations.empty() || activations == "f16") return cuda::Half::f16;
  if (activations == "bf16") return cuda::Half::bf16;
  fail("activations", "--activations: \"{}\" is nothing that a GPU multiplies; give f16 or bf16, or --device cpu",
       activations);
}

class CudaBackend final : public GpuBackend {
 public:
  CudaBackend(ThreadPool& pool, std::unique_ptr<cuda::Device> device, std::string_view activations, Tiles tiles)
      : kernels_name_(device->name()),
        cuda_{.memory = std::make_shared<CudaMemory>(std::move(device)),
              .pool = pool,
              .half = half_of(activations),
              .alone = tiles == Tiles::never},
        arrays_(*cuda_.memory),
        constants_(*cuda_.memory, SIZE_MAX) {}

  std::string_view name() const override { return "cuda"; }
  std::string_view kernels() const override { return kernels_name_; }
  int threads() const override { return cuda_.pool.size(); }
  std::optional<DeviceRates> rates() override {
    DeviceRates r{.type = cuda_.half == cuda::Half::f16 ? DType::f16 : DType::bf16};
    r.copied = std::min<int64_t>(int64_t(1) << 30, memory().device().free_bytes() / 8 * 2);
    r.copy = copy_rate(r.copied);
    r.product = product_rate();
    return r;
  }
  Tensor empty(Shape shape) override { return memory().empty(shape, DType::f32); }
  Tensor host(const Tensor& x) override { return memory().owns(x.data()) ? memory().download(x) : x; }
  std::unique_ptr<Linear> linear(const Pieces& w, const Tensor* bias) override { return cuda_linear(w, bias, cuda_); }
  int64_t linear_bytes(const Pieces& w) const override { return cuda_linear_bytes(w); }
  CudaMemory& memory() override { return *cuda_.memory; }
  int64_t linear_memory(const Pieces& w, bool bias) const override { return cuda_linear_memory(w, bias); }
  int64_t linear_room(const Pieces& w) const override { return cuda_slice_bytes(w); }
  void apply(std::span<const Linear* const> f, const Tensor& x, std::span<Tensor> y, int64_t batch) override {
    cuda_linears(f, x, y, batch);
  }
  std::unique_ptr<KvCache> kv_cache(std::span<const BlockSpec> blocks, DType dtype) override {
    return std::make_unique<CudaKvCache>(cuda_.memory, blocks, dtype);
  }

  std::unique_ptr<Recordings> recordings() override { return std::make_unique<CudaRecordings>(cuda_.memory, cuda_); }
  Tensor repeat(Recordings* recordings, int kind, Batch batch, const Tensor& x,
                const std::function<Tensor(Tensor&)>& pass) override {
    CudaStep& step = static_cast<CudaRecordings&>(*recordings).of(x.shape()[0], kind);
    return step.run(batch, x, pass, [&](bool in) { step_ = in ? &step : nullptr; });
  }
  int most_top() const override { return cuda::kMostTop; }
  Tensor top(const Tensor& x, int count) override {
    const int64_t rows = x.shape()[0], width = x.shape()[1];
    const auto pieces = int32_t((width + cuda::kTopPiece - 1) / cuda::kTopPiece);
    Tensor values = empty({rows, pieces * count}), places = empty({rows, pieces * count}), y = empty({2 * rows, count});
    cuda::TopArgs a{in(x), nullptr, out(values), bits(places), int32_t(rows), int32_t(width), count, pieces};
    run().top(on(), a);
    run().top(on(),
              {in(values), bits(places), out(y), bits(y) + rows * count, int32_t(rows), pieces * count, count, 1});
    return y;
  }

  /// Of a table on the host only the tokens' rows are sent.
  void embed(const Tensor& table, std::span<const int32_t> tokens, float scale, Tensor& x) override {
    require_rows(table, tokens);
    if (memory().owns(table.data())) return gather(table, tokens, scale, x);
    std::vector<float> rows(size_t(x.shape().elements()));
    copy_rows(table, tokens, scale, rows.data());
    memory().device().upload(x.data(), rows.data(), rows.size() * sizeof(float));
  }

  void norm(const Tensor& x, const Tensor& gain, const Tensor& bias, const NormSpec& norm, int64_t width,
            Tensor& y) override {
    run().norm(on(), norm_args(x, gain, bias, norm, width, y));
  }
  void add_norm(const Tensor& y, float by, Tensor& x, const Tensor& gain, const Tensor& bias, const NormSpec& spec,
                Tensor& h) override {
    cuda::NormArgs a = norm_args(x, gain, bias, spec, x.shape()[1], h);
    a.added = in(y);
    a.by = by;
    a.sum = out(x);
    run().norm(on(), a);
  }
  void activated_product(Activation act, Tensor& gate, const Tensor* up, const Linear& down, Tensor& y,
                         int64_t batch) override {
    if (!cuda_activated(map_of(act), gate, up, down, y, batch))
      Backend::activated_product(act, gate, up, down, y, batch);
  }

  void rope(Tensor& x, Batch batch, std::span<const float> frequencies, int head_dim, int first,
            bool interleaved) override {
    const auto [cosines, sines] = angles(batch, frequencies);
    run().rope(on(), {out(x), cosines, sines, x.shape()[0], int32_t(x.shape()[1]), head_dim, first,
                      int32_t(frequencies.size()), interleaved});
  }

  void join_heads(const Tensor& own, const Tensor& shared, int heads, Tensor& y) override {
    run().join(on(), {in(own), in(shared), out(y), own.shape()[0] * heads, heads, int32_t(own.shape()[1] / heads),
                      int32_t(shared.shape()[1])});
  }

  void attention(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const float> sinks, Batch batch,
                 int block, const AttentionSpec& spec, Tensor& y) override {
    const CudaHeads h = heads_of(q, k, v, sinks, batch, block, spec);
    cuda_attention(cuda_, tables(batch, spec), h, false, y);
  }
  void heads(const HeadsInput& in, Batch batch, int block, const AttentionSpec& spec, Tensor& y) override {
    const CudaHeads h = heads_of(in.q, in.k, in.v, in.sinks, batch, block, spec);
    const CudaTables t = tables(batch, spec);
    Tensor q = in.q;
    cuda::HeadsArgs a{};
    a.store = kv_store_of(t, h);
    a.q = out(q);
    a.heads = spec.heads;
    a.q_norm = head_norm(in.q_norm, spec.head_dim);
    a.k_norm = head_norm(in.k_norm, spec.head_dim);
    a.half = int32_t(in.frequencies.size());
    a.interleaved = spec.rope.interleaved;
    if (a.half) std::tie(a.cosines, a.sines) = angles(batch, in.frequencies);
    run().heads(on(), a);
    cuda_attention(cuda_, t, h, true, y);
  }

  /// On the CPU: a state goes from token to token, of which there is one where a GPU waits most. Not measured on one.
  void delta(const DeltaInput& x, Batch batch, int block, const DeltaSpec& spec, Tensor& y) override {
    const DeltaInput here{host(x.q),     host(x.k), host(x.v),    host(x.beta),
                          host(x.decay), x.conv,    x.decay_bias, x.decay_rate};
    Tensor out = Tensor::empty(y.shape(), DType::f32);
    delta_rule(cuda_.pool, kernels::select(), here, batch, block, spec, out);
    memory().device().upload(y.data(), out.data(), out.bytes());
  }

  void activate(Activation act, const Tensor& x, const Tensor* up, Tensor& y) override { map(map_of(act), x, up, y); }
  void clamped_swish(Tensor& gate, Tensor& up, float alpha, float limit) override {
    map(cuda::Map::swish_gate, gate, nullptr, gate, alpha, limit);
    map(cuda::Map::swish_up, up, nullptr, up, alpha, limit);
    map(cuda::Map::silu, gate, &up, gate);
  }
  void add(const Tensor& x, float scale, Tensor& y) override { map(cuda::Map::add, x, nullptr, y, scale); }
  void add_rows(const Tensor& x, std::span<const int32_t> rows, std::span<const float> weights, Tensor& y) override {
    run().rows(on(), {in(x), out(y), nullptr, arrays_.at(rows), arrays_.at(weights), x.shape()[0], x.shape()[1], true});
  }
  void scale(Tensor& x, float by) override { map(cuda::Map::scale, x, nullptr, x, by); }
  void zero(Tensor& x) override { memory().device().zero(x.data(), x.bytes()); }
  void clip(Tensor& x, float bound) override { map(cuda::Map::clip, x, nullptr, x, bound); }
  void soft_cap(Tensor& x, float cap) override { map(cuda::Map::soft_cap, x, nullptr, x, cap); }

 private:
  /// A RopeTable on the device.
  struct Angles {
    Tensor cosines, sines;
  };

  const cuda::Kernels& run() const { return cuda_.kernels(); }
  void* on() { return memory().device().stream(); }
  static const float* in(const Tensor& t) { return t.as<float>().data(); }
  static float* out(Tensor& t) { return t.as<float>().data(); }
  static int32_t* bits(Tensor& t) { return reinterpret_cast<int32_t*>(t.data()); }

  cuda::NormArgs norm_args(const Tensor& x, const Tensor& gain, const Tensor& bias, const NormSpec& norm, int64_t width,
                           Tensor& y) {
    cuda::NormArgs a{};
    a.x = in(x);
    a.gain = constant(gain);
    a.bias = constant(bias);
    a.y = out(y);
    a.runs = x.shape().elements() / width;
    a.width = int32_t(width);
    a.runs_of_row = gain ? int32_t(gain.shape()[0] / width) : 1;
    a.eps = norm.eps;
    a.gain_offset = norm.gain_offset;
    a.layer = norm.kind == NormKind::layer;
    return a;
  }
  /// Cosines and sines of a batch's positions.
  std::pair<const float*, const float*> angles(Batch batch, std::span<const float> frequencies) {
    if (step_)
      if (const auto at = step_->angles(frequencies)) return {at->cosines, at->sines};
    const auto [table, slot, fresh] = ropes_.of(batch, frequencies);
    Angles& known = angles_[slot];
    if (fresh) {
      const Shape shape{int64_t(table.positions.size()), int64_t(frequencies.size())};
      known = {memory().upload(table.cosines.data(), shape, DType::f32),
               memory().upload(table.sines.data(), shape, DType::f32)};
    }
    return {in(known.cosines), in(known.sines)};
  }
  CudaTables tables(Batch batch, const AttentionSpec& spec) {
    if (step_)
      if (const auto known = step_->attention(spec)) return *known;
    return tables_of(arrays_, CudaBatch(batch, spec));
  }
  CudaHeads heads_of(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const float> sinks, Batch batch,
                     int block, const AttentionSpec& spec) {
    return {.q = q,
            .k = k,
            .v = v,
            .slopes = constants_.at(times_log2e(spec.alibi_slopes())),
            .sinks = constants_.at(times_log2e(sinks)),
            .kv = static_cast<const CudaKvCache&>(*batch.front().kv).shape(block),
            .spec = spec};
  }
  cuda::HeadNormArgs head_norm(const std::optional<HeadsInput::Norm>& n, int width) {
    if (!n) return {};
    return {.gain = constant(n->gain),
            .bias = constant(n->bias),
            .heads = n->gain ? int32_t(n->gain.shape()[0] / width) : 1,
            .eps = n->spec.eps,
            .gain_offset = n->spec.gain_offset,
            .layer = n->spec.kind == NormKind::layer,
            .present = true};
  }

  void gather(const Tensor& table, std::span<const int32_t> rows, float scale, Tensor& x) {
    const std::vector<float> weights(rows.size(), scale);
    run().rows(on(), {in(table), out(x), arrays_.at(rows), nullptr, scale == 1 ? nullptr : arrays_.at(weights),
                      int64_t(rows.size()), x.shape()[1], false});
  }

  /// Seconds of the shorter of three runs, after one that does not count.
  template <class F>
  double seconds_of(const F& f) {
    double best = 1e9;
    for (int i = 0; i < 4; ++i) {
      memory().device().wait();
      const auto start = std::chrono::steady_clock::now();
      f();
      memory().device().wait();
      const double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      if (i > 0) best = std::min(best, s);
    }
    return best;
  }
  double copy_rate(int64_t moved) {
    const Tensor from = memory().zeros({moved / 2}, DType::u8);
    Tensor to = memory().empty({moved / 2}, DType::u8);
    constexpr int kCopies = 8;
    const double s = seconds_of([&] {
      for (int i = 0; i < kCopies; ++i) memory().device().copy(to.data(), from.data(), to.bytes());
    });
    return double(moved) * kCopies / s * 1e-9;
  }
  /// Of 16-bit weights; values as in a model, since zeros would be faster.
  double product_rate() {
    const int64_t rows = rate_rows(), tokens = std::min<int64_t>(rows, 2048);
    Tensor w = Tensor::empty({rows, rows}, DType::bf16), x = Tensor::empty({tokens, rows}, DType::f32);
    uint32_t seed = 1;
    const auto next = [&seed] { return float(int32_t(seed = seed * 1664525 + 1013904223)) * 0x1p-31f; };
    auto* bits = reinterpret_cast<uint16_t*>(w.data());
    for (int64_t i = 0; i < rows * rows; ++i) bits[i] = f32_to_bf16(next());
    for (float& v : x.as<float>()) v = next();
    const auto f = Backend::linear(Weight(w), nullptr);
    const Tensor there = memory().upload(std::as_const(x).as<float>());
    const Tensor in = Tensor::wrap(there.data(), x.shape(), DType::f32, std::make_shared<Tensor>(there));
    Tensor y = empty({tokens, rows});
    const double s = seconds_of([&] { f->multiply(in, y, tokens); });
    return 2.0 * double(rows) * double(rows) * double(tokens) / s * 1e-9;
  }
  /// 4,096 on a GPU; what has few multiprocessors gets a product of its size.
  int64_t rate_rows() { return memory().device().multiprocessors() >= 16 ? 4096 : 128; }

  static cuda::Map map_of(Activation act) {
    switch (act) {
      case Activation::silu:
        return cuda::Map::silu;
      case Activation::gelu_tanh:
        return cuda::Map::gelu_tanh;
      case Activation::gelu:
        return cuda::Map::gelu;
      case Activation::relu:
        return cuda::Map::relu;
      case Activation::relu2:
        return cuda::Map::relu2;
      case Activation::sigmoid:
        return cuda::Map::sigmoid;
      case Activation::clamped_swish:
        break;
    }
    fail("forward", "activation {} is not a function of one value", int(act));
  }
  void map(cuda::Map f, const Tensor& x, const Tensor* u, Tensor& y, float a = 0, float b = 0) {
    run().map(on(), {f, in(x), u ? in(*u) : nullptr, out(y), x.shape().elements(), a, b});
  }

  /// A norm's parameters, which are the host's and live as long as their block.
  const float* constant(const Tensor& t) {
    if (!t) return nullptr;
    Constant& c = known_[t.data()];
    if (!c.device || !same_bytes(c.host, t)) c = {t.clone(), memory().upload(t.as<float>())};
    return reinterpret_cast<const float*>(std::as_const(c.device).data());
  }

  struct Constant {
    Tensor host, device;
  };
  std::string kernels_name_;
  CudaContext cuda_;
  CudaArrays arrays_, constants_;  // the latter of models: recordings read them
  CudaStep* step_ = nullptr;       // whose pass this is
  std::map<const std::byte*, Constant> known_;
  RopeTables ropes_{cuda_.pool};
  std::array<Angles, RopeTables::kCount> angles_;
};

}  // namespace

std::unique_ptr<GpuBackend> cuda_backend(ThreadPool& pool, std::unique_ptr<cuda::Device> device,
                                         std::string_view activations, Tiles tiles) {
  return std::make_unique<CudaBackend>(pool, std::move(device), activations, tiles);
}

}  // namespace awq
