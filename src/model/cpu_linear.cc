#include "model/cpu_linear.h"

#include <algorithm>
#include <numeric>

#include "model/cpu_pack.h"
#include "model/cpu_tiles.h"

namespace awq {
namespace {

using kernels::kPanel;

int64_t panels_of(int64_t rows) { return (rows + kPanel - 1) / kPanel; }

// y[t][begin .. end) += bias
void add_bias(const kernels::KernelSet& k, const Tensor& bias, Tensor& y, int64_t begin, int64_t end) {
  if (!bias) return;
  const int64_t tokens = y.shape()[0], rows = y.shape()[1];
  for (int64_t t = 0; t < tokens; ++t)
    k.add(bias.as<float>().data() + begin, 1, y.as<float>().data() + t * rows + begin, end - begin);
}

/// The first token counts from which tiles are faster: weights of bfloat16 and float16, whose activations stay
/// accurate, and 4-bit ones.
constexpr int64_t kTileTokens = 9, kHalfTileTokens = 17, kIntTileTokens = 128;

/// Activations of all kinds have `prepare(begin, end)` for tokens at multiples of the set's token_block.
template <class Act>
void prepare(const Act& act, ThreadPool& pool, const kernels::KernelSet& k) {
  const int64_t tokens = act.view.tokens;
  if (tokens < 8)
    act.prepare(0, int32_t(tokens));  // a fork and a join would cost more
  else
    pool.run(tokens, k.token_block, [&](int64_t b, int64_t e) { act.prepare(int32_t(b), int32_t(e)); });
}

TileRows tile_rows(const Tensor& x, const kernels::KernelSet& k, bool pairs) {
  return {k, x.as<float>().data(), x.shape()[0], x.shape()[1], pairs};
}

class FloatLinear final : public Linear {
 public:
  FloatLinear(const Pieces& w, const Tensor* bias, const CpuContext& cpu)
      : panels_(pack_panels(w, cpu.pool)),
        bias_(bias ? bias->clone() : Tensor()),
        rows_(w.shape[0]),
        cols_(w.shape[1]),
        pool_(cpu.pool),
        k_(cpu.kernels),
        tiles_(cpu.tiles),
        gemm_(panels_.dtype() == DType::f32    ? k_.gemm_f32
              : panels_.dtype() == DType::bf16 ? k_.gemm_bf16
                                               : k_.gemm_f16),
        tiled_(panels_.dtype() == DType::bf16  ? k_.tiles_bf16
               : panels_.dtype() == DType::f16 ? k_.tiles_f16
                                               : nullptr) {}

  void multiply(const Tensor& x, Tensor& y, int64_t batch) const override {
    const int64_t tokens = x.shape()[0], panels = panels_of(rows_);
    const int64_t least = panels_.dtype() == DType::f16 ? kHalfTileTokens : kTileTokens;
    if (tiled_ && tiles_ != Tiles::never && cols_ % 32 == 0 && batch >= least) return on_tiles(x, y);
    // Few panels and many tokens (a narrow matrix in prefill) are split by tokens instead.
    if (panels < 4 * pool_.size() && tokens >= 16 * pool_.size())
      pool_.run(tokens, 6, [&](int64_t begin, int64_t end) { part(x, y, begin, end, 0, panels); });
    else
      pool_.run(panels, 1, [&](int64_t begin, int64_t end) { part(x, y, 0, tokens, begin, end); });
    add_bias(k_, bias_, y, 0, rows_);
  }
  int64_t rows() const override { return rows_; }
  int64_t bytes() const override { return int64_t(panels_.bytes()); }
  DType arithmetic(int64_t) const override { return DType::f32; }  // pairs are almost as accurate

 private:
  void on_tiles(const Tensor& x, Tensor& y) const {
    const TileRows act = tile_rows(x, k_, tiles_ != Tiles::rough);
    prepare(act, pool_, k_);
    pool_.run(panels_of(rows_), 1, [&](int64_t begin, int64_t end) {
      tiled_(reinterpret_cast<const uint16_t*>(panels_.data()), int32_t(rows_), act.view, y.as<float>().data(), rows_,
             int32_t(begin), int32_t(end), 0, int32_t(cols_));
    });
    add_bias(k_, bias_, y, 0, rows_);
  }
  void part(const Tensor& x, Tensor& y, int64_t t0, int64_t t1, int64_t p0, int64_t p1) const {
    gemm_({.a = x.as<float>().data() + t0 * cols_,
           .a_row = cols_,
           .b = panels_.data() + size_t(p0 * cols_ * kPanel) * size_of(panels_.dtype()),
           .b_panel = cols_ * kPanel,
           .b_k = kPanel,
           .c = y.as<float>().data() + t0 * rows_ + p0 * kPanel,
           .c_row = rows_,
           .m = int32_t(t1 - t0),
           .n = int32_t(std::min(rows_, p1 * kPanel) - p0 * kPanel),
           .k = int32_t(cols_),
           .accumulate = false});
  }
  Tensor panels_, bias_;
  int64_t rows_, cols_;
  ThreadPool& pool_;
  const kernels::KernelSet& k_;
  Tiles tiles_;
  void (*gemm_)(const kernels::Gemm&);
  decltype(kernels::KernelSet::tiles_bf16) tiled_;  // null: never
};

/// Activations as integers, in groups.
template <class Code>
struct IntActivations {
  const Tensor& x;
  const kernels::KernelSet& k;
  int32_t group;
  Tensor codes = Tensor::empty({room_for(x.shape()[0], k), x.shape()[1]}, sizeof(Code) == 1 ? DType::i8 : DType::i16);
  Tensor scales = Tensor::empty({codes.shape()[0], x.shape()[1] / group}, DType::f32);
  Tensor sums = Tensor::empty(scales.shape(), DType::i32);
  kernels::ActInt<Code> view{reinterpret_cast<Code*>(codes.data()),
                             scales.template as<float>().data(),
                             sums.template as<int32_t>().data(),
                             int32_t(x.shape()[0]),
                             int32_t(x.shape()[1]),
                             group};

  void prepare(int32_t begin, int32_t end) const {
    if constexpr (sizeof(Code) == 1)
      k.quantize_i8(x.as<float>().data(), view, begin, end);
    else
      k.quantize_i16(x.as<float>().data(), view, begin, end);
  }
};

/// x with its columns multiplied, a factor each.
Tensor scaled(const Tensor& x, const Tensor& factors) {
  if (!factors) return x;
  Tensor out = Tensor::empty(x.shape(), DType::f32);
  const auto by = factors.as<float>();
  for (int64_t t = 0; t < x.shape()[0]; ++t) {
    const float* row = x.as<float>().data() + t * x.shape()[1];
    float* to = out.as<float>().data() + t * x.shape()[1];
    for (size_t c = 0; c < by.size(); ++c) to[c] = row[c] * by[c];
  }
  return out;
}

/// x with its columns in another order.
Tensor reordered(const Tensor& x, const Tensor& order) {
  if (!order) return x;
  Tensor out = Tensor::empty(x.shape(), DType::f32);
  const auto from = order.as<int32_t>();
  for (int64_t t = 0; t < x.shape()[0]; ++t) {
    const float* row = x.as<float>().data() + t * x.shape()[1];
    float* to = out.as<float>().data() + t * x.shape()[1];
    for (size_t c = 0; c < from.size(); ++c) to[c] = row[from[c]];
  }
  return out;
}

/// f32 [tokens, groups]: what multiplies the rest of an offset.
Tensor group_sums(const Tensor& x, int64_t group, ThreadPool& pool) {
  const int64_t groups = x.shape()[1] / group;
  Tensor sums = Tensor::empty({x.shape()[0], groups}, DType::f32);
  pool.run(sums.shape().elements(), 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* v = x.as<float>().data() + i * group;
      sums.as<float>()[size_t(i)] = float(std::accumulate(v, v + group, 0.));
    }
  });
  return sums;
}

class IntLinear final : public Linear {
 public:
  IntLinear(const Pieces& w, const Tensor* bias, const CpuContext& cpu)
      : w_(pack_int(w, cpu.pool)), bias_(bias ? bias->clone() : Tensor()), cpu_(cpu) {}

  void multiply(const Tensor& x, Tensor& y, int64_t batch) const override {
    const IntLinear* self = this;
    together({&self, 1}, x, {&y, 1}, batch);
  }
  int64_t rows() const override { return w_.rows; }
  int64_t bytes() const override { return int64_t(w_.stream.bytes() + (w_.rest ? w_.rest.bytes() : 0)); }
  DType arithmetic(int64_t tokens) const override {
    return on_tiles(tokens) ? DType::bf16 : narrow() ? DType::i8 : DType::i16;
  }

  /// Whether one set of integer activations serves both.
  bool reads_like(const IntLinear& other) const {
    return w_.cols == other.w_.cols && w_.group == other.w_.group && narrow() == other.narrow() &&
           same_bytes(w_.order, other.w_.order) && same_bytes(w_.inputs, other.w_.inputs);
  }

  /// y[i] = f[i](x) for layers that read alike: activations are prepared once, all rows are one parallel region.
  static void together(std::span<const IntLinear* const> f, const Tensor& in, std::span<Tensor> y, int64_t batch) {
    const IntLinear& first = *f[0];
    const kernels::KernelSet& k = first.cpu_.kernels;
    const int32_t group = first.w_.group;
    const Tensor x = reordered(scaled(in, first.w_.inputs), first.w_.order);
    const bool any_rest = std::ranges::any_of(f, [](const IntLinear* l) { return bool(l->w_.rest); });
    const Tensor sums = any_rest ? group_sums(x, group, first.cpu_.pool) : Tensor();
    if (first.on_tiles(batch))
      run(f, tile_rows(x, k, false), sums, y);
    else if (first.cpu_.activations == Activations::bf16)
      run(f, IntActivations<int16_t>{x.to(DType::bf16).to(DType::f32), k, group}, sums, y);
    else if (first.narrow())
      run(f, IntActivations<int8_t>{x, k, group}, sums, y);
    else
      run(f, IntActivations<int16_t>{x, k, group}, sums, y);
  }

 private:
  bool narrow() const { return cpu_.activations == Activations::int8 && w_.bits == 4; }
  bool on_tiles(int64_t tokens) const {
    return cpu_.activations == Activations::bf16 && cpu_.tiles != Tiles::never && tokens >= kIntTileTokens &&
           cpu_.kernels.tiles_int && w_.group % 32 == 0;
  }

  template <class Act>
  static void run(std::span<const IntLinear* const> f, const Act& act, const Tensor& sums, std::span<Tensor> y) {
    const CpuContext& cpu = f[0]->cpu_;
    prepare(act, cpu.pool, cpu.kernels);
    int64_t panels = 0;
    for (const IntLinear* l : f) panels += panels_of(l->w_.rows);
    cpu.pool.run(panels, 1, [&](int64_t b, int64_t e) {
      for (size_t i = 0; i < f.size(); ++i) {
        const int64_t n = panels_of(f[i]->w_.rows);
        f[i]->part(act.view, sums, y[i], std::clamp<int64_t>(b, 0, n), std::clamp<int64_t>(e, 0, n));
        b -= n, e -= n;
      }
    });
  }

  template <class View>
  void part(const View& x, const Tensor& sums, Tensor& y, int64_t begin, int64_t end) const {
    if (begin >= end) return;
    product(x, y.as<float>().data(), int32_t(begin), int32_t(end));
    if (w_.rest) add_rest(sums, y, begin, end);
    add_bias(cpu_.kernels, bias_, y, begin * kPanel, std::min<int64_t>(end * kPanel, w_.rows));
  }
  void add_rest(const Tensor& sums, Tensor& y, int64_t begin, int64_t end) const {
    const int64_t groups = sums.shape()[1], panel = groups * kPanel;
    cpu_.kernels.gemm_f32({.a = sums.as<float>().data(),
                           .a_row = groups,
                           .b = w_.rest.as<float>().data() + begin * panel,
                           .b_panel = panel,
                           .b_k = kPanel,
                           .c = y.as<float>().data() + begin * kPanel,
                           .c_row = w_.rows,
                           .m = int32_t(sums.shape()[0]),
                           .n = int32_t(std::min<int64_t>(w_.rows, end * kPanel) - begin * kPanel),
                           .k = int32_t(groups),
                           .accumulate = true});
  }
  void product(const kernels::ActI8& x, float* y, int32_t begin, int32_t end) const {
    cpu_.kernels.matmul_i8(w_.view(), x, y, w_.rows, begin, end);
  }
  void product(const kernels::ActI16& x, float* y, int32_t begin, int32_t end) const {
    cpu_.kernels.matmul_i16(w_.view(), x, y, w_.rows, begin, end);
  }
  void product(const kernels::ActBf16& x, float* y, int32_t begin, int32_t end) const {
    cpu_.kernels.tiles_int(w_.view(), x, y, w_.rows, begin, end);
  }

  PackedMatrix w_;
  Tensor bias_;
  CpuContext cpu_;
};

}  // namespace

std::unique_ptr<Linear> cpu_linear(const Pieces& w, const Tensor* bias, const CpuContext& cpu) {
  if (std::holds_alternative<QuantSpec>(w.type)) return std::make_unique<IntLinear>(w, bias, cpu);
  return std::make_unique<FloatLinear>(w, bias, cpu);
}

void cpu_linears(std::span<const Linear* const> f, const Tensor& x, std::span<Tensor> y, int64_t batch) {
  std::vector<const IntLinear*> alike;
  for (const Linear* l : f)
    if (const auto* i = dynamic_cast<const IntLinear*>(l); i && (alike.empty() || i->reads_like(*alike[0])))
      alike.push_back(i);
  if (alike.size() == f.size()) return IntLinear::together(alike, x, y, batch);
  for (size_t i = 0; i < f.size(); ++i) f[i]->multiply(x, y[i], batch);
}

}  // namespace awq
