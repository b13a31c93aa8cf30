// A GPU and the CPU as one backend: the CPU computes a model's first blocks, the GPU the others and the head, so that
// activations go from one to the other once in a pass.
#include <algorithm>
#include <numeric>
#include <utility>

#include "model/cuda_backend.h"
#include "model/cuda_steps.h"

namespace awq {
namespace {

/// Keys and values of each block where it is computed.
class SplitKvCache final : public KvCache {
 public:
  SplitKvCache(Backend& gpu, Backend& cpu, std::span<const BlockSpec> blocks, DType dtype) {
    std::vector<BlockSpec> own[2];
    for (const BlockSpec& b : blocks) {
      places_.push_back({b.on_host, int(own[b.on_host].size())});
      own[b.on_host].push_back(b);
    }
    parts_[0] = gpu.kv_cache(own[0], dtype);
    parts_[1] = cpu.kv_cache(own[1], dtype);
  }
  SplitKvCache(const SplitKvCache& other) : places_(other.places_) {
    for (int i : {0, 1}) parts_[i] = other.parts_[i]->clone();
  }
  int64_t bytes() const override { return parts_[0]->bytes() + parts_[1]->bytes(); }
  std::unique_ptr<KvCache> clone() const override { return std::make_unique<SplitKvCache>(*this); }
  int64_t bytes_for(int64_t positions) const override {
    return parts_[0]->bytes_for(positions) + parts_[1]->bytes_for(positions);
  }
  DeltaState& delta(int block) override { return part_of(block).delta(index_of(block)); }
  int page_positions() const override { return parts_[0]->page_positions(); }
  /// The GPU's page, which is one tensor, and behind it those of the CPU.
  std::vector<Tensor> page(int64_t index) const override {
    std::vector<Tensor> all = parts_[0]->page(index);
    for (const Tensor& t : parts_[1]->page(index)) all.push_back(t);
    return all;
  }
  void put_page(int64_t index, std::span<const Tensor> page) override {
    parts_[0]->put_page(index, page.first(1));
    parts_[1]->put_page(index, page.subspan(1));
  }
  void make_room(int64_t positions) override { parts_[0]->make_room(positions); }
  KvCache& part_of(int block) { return *parts_[places_.at(size_t(block)).on_host]; }
  int index_of(int block) const { return places_.at(size_t(block)).index; }

 private:
  struct Place {
    bool on_host;
    int index;
  };
  std::vector<Place> places_;
  std::unique_ptr<KvCache> parts_[2];  // the GPU's, and the CPU's
};

/// A batch with the caches of the side that has `block`.
class PartOfBatch {
 public:
  PartOfBatch(Batch batch, int block) : batch_(batch), block_(block) {
    for (const Sequence& s : batch) {
      auto* kv = dynamic_cast<SplitKvCache*>(s.kv);
      if (!kv) return;  // all blocks are on the GPU
      own_.push_back(s);
      own_.back().kv = &kv->part_of(block);
      block_ = kv->index_of(block);
    }
    batch_ = own_;
  }
  Batch batch() const { return batch_; }
  int block() const { return block_; }

 private:
  std::vector<Sequence> own_;
  Batch batch_;
  int block_;
};

double megabytes(int64_t bytes) { return double(bytes) / 1e6; }

/// Bytes of a GPU that a model takes, block by block.
struct Demand {
  std::vector<int64_t> blocks, caches;  // weights, and keys and values
  int64_t head = 0, work = 0;
  int64_t slice = 0;  // of `work`, what is taken when the model is loaded
  /// Of the last n blocks.
  int64_t weights(int n) const { return head + last(blocks, n); }
  int64_t keys(int n) const { return last(caches, n); }
  int64_t all(int n) const { return weights(n) + keys(n) + work; }
  /// How many blocks fit; -1: not even the head does.
  int fitting(int64_t room) const {
    for (int n = int(blocks.size()); n >= 0; --n)
      if (all(n) <= room) return n;
    return -1;
  }

 private:
  static int64_t last(const std::vector<int64_t>& v, int n) { return std::reduce(v.end() - n, v.end()); }
};

/// Buffers of so many tokens that a forward pass has at once; each is counted, though some follow each other.
int64_t block_work(const BlockSpec& b, int64_t tokens) {
  const AttentionSpec& a = b.attention;
  const int64_t inner = b.widest_mlp(), mixed = b.mixed_rows(), dim = b.dim;
  int64_t bytes = 0;
  for (const int64_t width :
       {dim, dim, dim, int64_t(a.q_rows()), int64_t(a.kv_rows()), int64_t(a.v_rows()), mixed, inner, inner})
    bytes += CudaMemory::working_bytes(tokens * width * 4);
  for (const int64_t width : {dim, mixed, inner})  // in 16 bits, with sums
    bytes +=
        CudaMemory::working_bytes(tokens * (width + 64) * 2) + CudaMemory::working_bytes(tokens * (width / 32 + 2) * 4);
  if (b.experts) bytes += 4 * CudaMemory::working_bytes(tokens * std::max(dim, inner) * 4);  // of those of each expert
  return bytes;
}

class SplitBackend final : public Backend {
 public:
  SplitBackend(std::unique_ptr<GpuBackend> gpu, std::unique_ptr<Backend> cpu, int layers, DType kv)
      : gpu_(std::move(gpu)), cpu_(std::move(cpu)), layers_(layers), kv_(kv), kernels_(gpu_->kernels()) {}

  std::string_view name() const override { return gpu_->name(); }
  std::string_view kernels() const override { return kernels_; }
  int threads() const override { return gpu_->threads(); }
  std::string placement() const override { return placement_; }
  std::optional<DeviceRates> rates() override { return gpu_->rates(); }
  Tensor empty(Shape shape) override { return at_->empty(shape); }
  Tensor host(const Tensor& x) override { return gpu_->host(x); }

  void place(ModelSpec& spec, const MatrixOf& matrix) override {
    const Demand d = demand(spec, matrix);
    const auto all = int(spec.blocks.size());
    const int64_t room = gpu_->memory().budget() - gpu_->memory().bytes_in_use();
    const int n = layers_ ? layers_ : d.fitting(room);
    require(d, n, all, room);
    if (n < all && std::ranges::any_of(spec.blocks, [](const BlockSpec& b) { return b.borrows_keys(); }))
      fail("load",
           "{} of {} blocks would be on the GPU, but blocks of this model read keys and values of earlier ones, which "
           "are where those run. Leave out --gpu-layers, use a GPU with more memory, or --device cpu",
           n, all);
    for (int i = 0; i < all; ++i) spec.blocks[size_t(i)].on_host = i < all - n;
    gpu_->memory().keep_free(d.work - d.slice);
    served_ = 0;
    for (const BlockSpec& b : spec.blocks) served_ = std::max(served_, block_work(b, kServed / 2));
    served_ = served_ * int64_t(kMostRecordings) + CudaMemory::working_bytes(int64_t(kServed) * spec.vocab * 4);
    placement_ = fmt::format(
        "{} of {} blocks and the head on {}: {:.1f} MB of weights, {:.1f} MB for keys and values of {} tokens, {:.1f} "
        "MB to work in, of a budget of {:.1f} MB",
        n, all, gpu_->kernels(), megabytes(d.weights(n)), megabytes(d.keys(n)), planned(spec), megabytes(d.work),
        megabytes(room));
    kernels_ = gpu_->kernels();
    if (n < all) kernels_ += fmt::format(", and {} for {} of {} blocks", cpu_->kernels(), all - n, all);
  }
  void enter(bool on_host) override { at_ = on_host ? cpu_.get() : gpu_.get(); }
  void enter(bool on_host, Tensor& x) override {
    Backend* before = std::exchange(at_, on_host ? cpu_.get() : gpu_.get());
    if (before == at_) return;
    x = on_host ? gpu_->host(x) : gpu_->memory().upload(x.data(), x.shape(), x.dtype());
  }
  std::optional<int64_t> kv_room(std::span<const BlockSpec> blocks, DType dtype) override {
    const auto kv = kv_cache(blocks, dtype);
    std::vector<BlockSpec> own;
    for (const BlockSpec& b : blocks)
      if (!b.on_host) own.push_back(b);
    const int64_t page = std::max<int64_t>(1, gpu_->kv_cache(own, dtype)->bytes_for(1));
    return std::max<int64_t>(gpu_->memory().room() - served_, 0) / page * kv->bytes_for(1);
  }

  std::unique_ptr<Recordings> recordings() override { return gpu_->recordings(); }
  Tensor repeat(Recordings* recordings, int kind, Batch batch, const Tensor& x,
                const std::function<Tensor(Tensor&)>& pass) override {
    return at_->repeat(recordings, kind, batch, x, pass);
  }
  int most_top() const override { return gpu_->most_top(); }
  Tensor top(const Tensor& x, int count) override { return at_->top(x, count); }

  std::unique_ptr<Linear> linear(const Pieces& w, const Tensor* bias) override { return at_->linear(w, bias); }
  int64_t linear_bytes(const Pieces& w) const override { return gpu_->linear_bytes(w); }
  void apply(std::span<const Linear* const> f, const Tensor& x, std::span<Tensor> y, int64_t batch) override {
    at_->apply(f, x, y, batch);
  }
  std::unique_ptr<KvCache> kv_cache(std::span<const BlockSpec> blocks, DType dtype) override {
    if (std::ranges::none_of(blocks, &BlockSpec::on_host)) return gpu_->kv_cache(blocks, dtype);
    return std::make_unique<SplitKvCache>(*gpu_, *cpu_, blocks, dtype);
  }

  void embed(const Tensor& table, std::span<const int32_t> tokens, float scale, Tensor& x) override {
    at_->embed(table, tokens, scale, x);
  }
  void norm(const Tensor& x, const Tensor& gain, const Tensor& bias, const NormSpec& norm, int64_t width,
            Tensor& y) override {
    at_->norm(x, gain, bias, norm, width, y);
  }
  void rope(Tensor& x, Batch batch, std::span<const float> frequencies, int head_dim, int first,
            bool interleaved) override {
    at_->rope(x, batch, frequencies, head_dim, first, interleaved);
  }
  void join_heads(const Tensor& own, const Tensor& shared, int heads, Tensor& y) override {
    at_->join_heads(own, shared, heads, y);
  }
  void attention(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const float> sinks, Batch batch,
                 int block, const AttentionSpec& spec, Tensor& y) override {
    const PartOfBatch part(batch, block);
    at_->attention(q, k, v, sinks, part.batch(), part.block(), spec, y);
  }
  void heads(const HeadsInput& in, Batch batch, int block, const AttentionSpec& spec, Tensor& y) override {
    const PartOfBatch part(batch, block);
    at_->heads(in, part.batch(), part.block(), spec, y);
  }
  void add_norm(const Tensor& y, float by, Tensor& x, const Tensor& gain, const Tensor& bias, const NormSpec& spec,
                Tensor& h) override {
    at_->add_norm(y, by, x, gain, bias, spec, h);
  }
  void activated_product(Activation act, Tensor& gate, const Tensor* up, const Linear& down, Tensor& y,
                         int64_t batch) override {
    at_->activated_product(act, gate, up, down, y, batch);
  }
  void delta(const DeltaInput& in, Batch batch, int block, const DeltaSpec& spec, Tensor& y) override {
    const PartOfBatch part(batch, block);
    at_->delta(in, part.batch(), part.block(), spec, y);
  }
  void activate(Activation act, const Tensor& x, const Tensor* up, Tensor& y) override { at_->activate(act, x, up, y); }
  void clamped_swish(Tensor& gate, Tensor& up, float alpha, float limit) override {
    at_->clamped_swish(gate, up, alpha, limit);
  }
  void add(const Tensor& x, float scale, Tensor& y) override { at_->add(x, scale, y); }
  void add_rows(const Tensor& x, std::span<const int32_t> rows, std::span<const float> weights, Tensor& y) override {
    at_->add_rows(x, rows, weights, y);
  }
  void scale(Tensor& x, float by) override { at_->scale(x, by); }
  void zero(Tensor& x) override { at_->zero(x); }
  void clip(Tensor& x, float bound) override { at_->clip(x, bound); }
  void soft_cap(Tensor& x, float cap) override { at_->soft_cap(x, cap); }

 private:
  static int planned(const ModelSpec& spec) { return std::min(spec.max_context, kPlannedPositions); }

  Demand demand(const ModelSpec& spec, const MatrixOf& matrix) {
    Demand d;
    const auto weights = [&](int block, Param p, bool bias) {
      const Pieces w = matrix(block, p);
      d.slice = std::max(d.slice, gpu_->linear_room(w));
      return gpu_->linear_memory(w, bias);
    };
    const int64_t tokens = std::min(spec.max_context, kPlannedTokens);
    for (int i = 0; i < int(spec.blocks.size()); ++i) {
      const BlockSpec& b = spec.blocks[size_t(i)];
      d.blocks.push_back(0);
      for (Param p : b.params())
        d.blocks.back() +=
            is_norm(p.role) ? 2 * CudaMemory::working_bytes(b.shape(p).first * 4) : weights(i, p, b.has_bias(p));
      d.caches.push_back(CudaMemory::kept_bytes(gpu_->kv_cache({&b, 1}, kv_)->bytes_for(planned(spec))));
      d.work = std::max(d.work, block_work(b, tokens));
    }
    d.head = weights(-1, {Role::head}, spec.head_bias) + 2 * CudaMemory::working_bytes(spec.dim * 4);
    d.work += d.slice + products(tokens) + 2 * CudaMemory::working_bytes(int64_t(spec.vocab) * 4);
    return d;
  }
  /// Parts of tiles that blocks share, for prompts and for single tokens; and tables.
  int64_t products(int64_t tokens) {
    const int processors = gpu_->memory().device().multiprocessors();
    return CudaMemory::working_bytes(cuda::partial_floats(tokens, processors) * 4) +
           CudaMemory::working_bytes(cuda::partial_floats(1, processors) * 4) + kTables;
  }
  /// Sequences that are answered at once; steps of fewer are recorded too, of half as many on average.
  static constexpr int kServed = 64;
  static constexpr int64_t kTables = 4 << 20;  // angles, pages, tiles, counters, parts of split attention

  void require(const Demand& d, int n, int all, int64_t room) const {
    if (n > all)
      fail("device",
           "--gpu-layers {}: the model has {} blocks; give 1 to {}, or leave it out: then it is as many as fit", n, all,
           all);
    if (layers_ && d.all(n) <= room) return;
    const int fit = d.fitting(room);
    if (layers_)
      fail("device",
           "--gpu-layers {}: {} blocks and the head take {:.1f} MB of {}, with {:.1f} MB to work in, and its budget is "
           "{:.1f} MB. {}",
           n, n, megabytes(d.all(n)), gpu_->kernels(), megabytes(d.work), megabytes(room),
           fit > 0 ? fmt::format("Give up to {}", fit) : "Close other programs that use it, or give --device cpu");
    if (n < 1)
      fail("device",
           "{} has a budget of {:.1f} MB, and the head with one block takes {:.1f} MB, {:.1f} MB of them to work in. "
           "Close "
           "other programs that use it, or give --device cpu",
           gpu_->kernels(), megabytes(room), megabytes(d.all(1)), megabytes(d.work));
  }

  std::unique_ptr<GpuBackend> gpu_;
  std::unique_ptr<Backend> cpu_;
  Backend* at_ = gpu_.get();  // where calls go
  int layers_;
  DType kv_;
  int64_t served_ = 0;  // bytes that many sequences take beside what one prompt does
  std::string kernels_, placement_;
};

}  // namespace

std::unique_ptr<Backend> split_backend(std::unique_ptr<GpuBackend> gpu, std::unique_ptr<Backend> cpu, int layers,
                                       DType kv) {
  return std::make_unique<SplitBackend>(std::move(gpu), std::move(cpu), layers, kv);
}

}  // namespace awq
