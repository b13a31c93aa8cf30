#include "model/cuda_linear.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <optional>

#include "base/numeric.h"

namespace awq {
namespace {

using cuda::kRowTile;
using cuda::kUnitColumns;

constexpr int64_t kSliceBytes = 16 << 20;  // of decoded rows: stays in the second-level cache of current GPUs

int64_t cuda_round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/// How a matrix is kept.
struct CudaForm {
  int64_t rows = 0, cols = 0, group = 0;
  int bits = 16;  // 4, 8, 16, or 32 for floats that stay what they are
  bool half_scales = false, offsets = false;

  int64_t groups() const { return cols / group; }
  int64_t tiles() const { return cuda_round_up(rows, kRowTile) / kRowTile; }
  int64_t padded() const { return cuda_round_up(cols, kUnitColumns); }
  int64_t code_bytes() const { return tiles() * kRowTile * padded() * bits / 8; }
  int64_t grids() const { return tiles() * kRowTile * groups(); }
  int64_t scale_bytes() const { return half_scales ? 2 : 4; }
};

/// Of a matrix that is decoded slice by slice.
int64_t rows_of_slice(const CudaForm& f) { return std::max<int64_t>(kSliceBytes / (f.padded() * 2) / 128, 1) * 128; }
int64_t slice_bytes(const CudaForm& f) {
  return std::min(rows_of_slice(f), cuda_round_up(f.rows, 128)) * f.padded() * 2;
}

bool runs_as_codes(const QuantSpec& q, int64_t cols) {
  return q.bits <= 8 && (q.group_size % cuda::kSumColumns == 0 || q.group_size == cols);
}

CudaForm form_of(const Pieces& w) {
  CudaForm f{.rows = w.shape[0], .cols = w.shape[1], .group = w.shape[1]};
  if (const auto* type = std::get_if<DType>(&w.type)) {
    if (*type == DType::f32) f.bits = 32;
    return f;
  }
  const auto& q = std::get<QuantSpec>(w.type);
  if (!runs_as_codes(q, f.cols)) return f;
  f.bits = q.bits <= 4 ? 4 : 8;
  f.group = q.group_size;
  f.half_scales = q.scale_dtype == DType::f16;
  f.offsets = q.offsets;
  return f;
}

/// A power of two that brings values up to `most` into [2^13, 2^14): far from what f16 cannot hold at either end.
float power_for(float most) {
  if (!(most > 0) || !std::isfinite(most)) return 1;
  return std::ldexp(1.f, std::clamp(std::ilogb(most) - 13, -110, 110));
}

/// Scales, zero points and offsets of all groups in the order of cuda::Matrix, and the rows' powers of two.
class Grids {
 public:
  explicit Grids(const CudaForm& f)
      : form_(f),
        scales_(size_t(f.grids() * f.scale_bytes())),
        offsets_(f.offsets ? scales_.size() : 0),
        zeros_(f.offsets ? 0 : size_t(f.grids())),
        most_(size_t(f.rows)) {}

  /// Threads put different rows, or different groups of them.
  void put(const Piece& piece, const QMatrix& q) {
    for (int64_t r = 0; r < q.rows(); ++r)
      for (int64_t g = 0; g < q.groups(); ++g) {
        const auto from = size_t(r * q.groups() + g);
        const int64_t group = (piece.col + g * q.spec.group_size) / form_.group;
        put(piece.row + r, group, q.scales.as<float>()[from], form_.offsets ? q.offsets.as<float>()[from] : 0.f,
            form_.offsets ? uint8_t(0) : q.zeros.as<uint8_t>()[from], q.spec.levels());
      }
  }
  std::span<const uint8_t> scales() const { return scales_; }
  std::span<const uint8_t> offsets() const { return offsets_; }
  std::span<const uint8_t> zeros() const { return zeros_; }
  std::vector<float> row_scales() const {
    std::vector<float> out;
    for (const std::atomic<float>& m : most_) out.push_back(power_for(m));
    return out;
  }

 private:
  void put(int64_t row, int64_t group, float scale, float offset, uint8_t zero, int levels) {
    const auto at = size_t((row / kRowTile * form_.groups() + group) * kRowTile + row % kRowTile);
    store(scales_, at, scale);
    if (form_.offsets)
      store(offsets_, at, offset);
    else
      zeros_[at] = zero, offset = -float(zero) * scale;
    // A row may be in several pieces.
    const float most = std::abs(scale) * float(levels) + std::abs(offset);
    std::atomic<float>& known = most_[size_t(row)];
    for (float seen = known; seen < most && !known.compare_exchange_weak(seen, most);) continue;
  }
  void store(std::vector<uint8_t>& to, size_t at, float v) const {
    if (const uint16_t half = f32_to_f16(v); form_.half_scales)
      std::memcpy(to.data() + 2 * at, &half, 2);
    else
      std::memcpy(to.data() + 4 * at, &v, 4);
  }
  const CudaForm& form_;
  std::vector<uint8_t> scales_, offsets_, zeros_;
  std::vector<std::atomic<float>> most_;
};

/// A quantized matrix whose groups no kernel knows: put together, and its rows as floats with columns in the order of
/// the codes.
Pieces as_floats(const Pieces& w, ThreadPool& pool) {
  auto q = std::make_shared<QMatrix>(whole_codes(w, pool));
  q->order = q->inputs = {};
  const int64_t cols = w.shape[1];
  return in_bands(w.shape, DType::f32, cols * 4, 1, [q, cols](int64_t begin, int64_t end) {
    Tensor band = Tensor::empty({end - begin, cols}, DType::f32);
    dequantize(*q, begin, end - begin, band.as<float>().data());
    return Weight(band);
  });
}

int stored_type(DType t) { return t == DType::f32 ? 0 : t == DType::f16 ? 1 : 2; }

}  // namespace

namespace {

class CudaLinear final : public Linear {
 public:
  CudaLinear(const Pieces& w, const Tensor* bias, CudaContext& cuda)
      : form_(form_of(w)), order_(w.order), inputs_(w.inputs), cuda_(cuda) {
    if (bias) bias_ = upload(bias->as<float>());
    if (order_) order_at_ = upload(std::as_const(order_).as<int32_t>());
    if (inputs_) inputs_at_ = upload(std::as_const(inputs_).as<float>());
    if (form_.bits == 32)
      pack_dense(w);
    else if (form_.bits == 16)
      pack_floats(std::holds_alternative<DType>(w.type) ? w : as_floats(w, cuda.pool));
    else
      pack_codes(w);
    make_room();
  }

  void multiply(const Tensor& x, Tensor& y, int64_t batch) const override {
    const CudaLinear* self = this;
    together({&self, 1}, {x}, {&y, 1}, batch);
  }
  int64_t rows() const override { return form_.rows; }
  int64_t bytes() const override {
    return int64_t(codes_.bytes() + scales_.bytes() + zeros_.bytes() + offsets_.bytes());
  }
  DType arithmetic(int64_t) const override {
    return form_.bits == 32 ? DType::f32 : cuda_.half == cuda::Half::f16 ? DType::f16 : DType::bf16;
  }
  bool reads_like(const CudaLinear& other) const {
    return form_.cols == other.form_.cols && same_bytes(order_, other.order_) && same_bytes(inputs_, other.inputs_);
  }

  bool reads_floats() const { return form_.bits == 32; }

  /// What activations are made of: x, or map(x) times `up`.
  struct Source {
    const Tensor& x;
    const Tensor* up = nullptr;
    std::optional<cuda::Map> map{};
  };

  /// y[i] = f[i](x) for layers that read alike: activations are prepared once.
  static void together(std::span<const CudaLinear* const> f, const Source& of, std::span<Tensor> y, int64_t batch) {
    const CudaLinear& first = *f[0];
    const Tensor& x = of.x;
    const int64_t tokens = x.shape()[0], most = first.cuda_.alone ? int64_t(cuda::kFewTokens) : tokens;
    for (int64_t t = 0; t < tokens; t += most) {
      const int64_t end = std::min(tokens, t + most);
      const Prepared p(first, of, t, end, first.cuda_.alone ? end - t : batch);
      for (size_t i = 0; i < f.size(); i += cuda::kMostTogether)
        products(f.subspan(i, std::min(f.size() - i, size_t(cuda::kMostTogether))), p.act, y.subspan(i), t,
                 first.cuda_.alone ? end - t : batch);
    }
  }

 private:
  /// Activations in 16 bits, for as long as products are being started.
  struct Prepared {
    Prepared(const CudaLinear& l, const Source& of, int64_t begin, int64_t end, int64_t batch) {
      CudaMemory& m = *l.cuda_.memory;
      const Tensor x = of.x.rows(begin, end);
      const int64_t tokens = end - begin, padded = l.form_.padded();
      values = m.empty({tokens, padded}, DType::f16);
      scales = m.empty({tokens}, DType::f32);
      sums = m.empty({tokens, padded / cuda::kSumColumns}, DType::f32);
      const bool changed = l.order_ || l.inputs_;
      if (changed) copy = m.empty(x.shape(), DType::f32);
      act = {values.data(),   floats(scales),        floats(sums),    changed ? floats(copy) : x.as<float>().data(),
             int32_t(tokens), int32_t(l.form_.cols), int32_t(padded), l.cuda_.half};
      act.grouped = batch > cuda::kMaxDirect && m.device().multiplies_by_groups();
      cuda::PrepareArgs a{x.as<float>().data(), floats(l.inputs_at_), ints(l.order_at_), act, floats(copy)};
      if (of.map) a.mapped = true, a.map = *of.map;
      if (of.up) a.up = of.up->rows(begin, end).as<float>().data();
      l.cuda_.kernels().prepare(m.device().stream(), a);
    }
    Tensor values, scales, sums, copy;
    cuda::Act act;
  };

  template <class T>
  Tensor upload(std::span<const T> v) {
    Tensor t = cuda_.memory->kept({int64_t(v.size_bytes())}, DType::u8);
    device().upload(t.data(), v.data(), v.size_bytes());
    return t;
  }
  Tensor zero_codes() {
    Tensor t = cuda_.memory->kept({form_.code_bytes()}, DType::u8);
    device().zero(t.data(), t.bytes());
    return t;
  }
  static float* floats(const Tensor& t) {
    return t ? reinterpret_cast<float*>(const_cast<std::byte*>(t.data())) : nullptr;
  }
  static int32_t* ints(const Tensor& t) { return reinterpret_cast<int32_t*>(floats(t)); }

  cuda::Matrix view() const {
    cuda::Matrix m;
    m.codes = form_.bits == 32 ? nullptr : reinterpret_cast<uint8_t*>(floats(codes_));
    m.dense = form_.bits == 32 ? floats(codes_) : nullptr;
    m.scales = floats(scales_);
    m.zeros = reinterpret_cast<uint8_t*>(floats(zeros_));
    m.offsets = floats(offsets_);
    m.row_scales = floats(row_scales_);
    m.rows = int32_t(form_.rows);
    m.cols = int32_t(form_.cols);
    m.group = int32_t(form_.group);
    m.groups = int32_t(form_.groups());
    m.bits = form_.bits;
    m.half_scales = form_.half_scales;
    m.half = cuda_.half;
    return m;
  }

  /// Rows of y from `token` on.
  static void products(std::span<const CudaLinear* const> f, const cuda::Act& x, std::span<Tensor> y, int64_t token,
                       int64_t batch) {
    CudaContext& cuda = f[0]->cuda_;
    const int processors = cuda.memory->device().multiprocessors();
    int64_t tiles = 0;
    for (const CudaLinear* l : f) tiles += l->tiles(x);
    int32_t* counters = cuda.zero_counters(tiles);
    float* parts = cuda.room_for_parts(cuda::partial_floats(x.tokens, processors));
    cuda::LinearsArgs all{};
    for (; all.count < int(f.size()); ++all.count) {
      const CudaLinear& l = *f[size_t(all.count)];
      cuda::LinearArgs& a = all.of[all.count] = l.arguments(x, batch);
      a.y = y[size_t(all.count)].rows(token, token + x.tokens).as<float>().data();
      a.partial = parts;
      a.counters = counters;
      counters += l.tiles(x);
    }
    cuda.kernels().linear(cuda.memory->device().stream(), all);
  }
  int64_t tiles(const cuda::Act& x) const { return cuda::linear_tiles(form_.rows, x.tokens); }
  cuda::LinearArgs arguments(const cuda::Act& x, int64_t batch) const {
    cuda::LinearArgs a;
    a.w = view();
    a.x = x;
    a.bias = floats(bias_);
    a.y_row = form_.rows;
    a.batch = int32_t(batch);
    a.multiprocessors = cuda_.memory->device().multiprocessors();
    a.slice = floats(cuda_.slice);
    a.slice_rows = slice_rows();
    return a;
  }
  int32_t slice_rows() const { return int32_t(rows_of_slice(form_)); }
  /// Of a slice of decoded rows, before the first token asks for it.
  void make_room() {
    const int64_t bytes = slice_bytes(form_);
    if (form_.bits <= 8 && (!cuda_.slice || int64_t(cuda_.slice.bytes()) < bytes))
      cuda_.slice = cuda_.memory->empty({bytes}, DType::u8);
  }

  void pack_codes(const Pieces& w) {
    codes_ = zero_codes();
    Grids grids(form_);
    each_piece(
        w, [&](const Piece& piece) { grids.put(piece, std::get<QMatrix>(piece.weight)); },
        [&](const Piece& piece) {
          const auto& q = std::get<QMatrix>(piece.weight);
          const Tensor raw = cuda_.memory->upload(q.codes.data(), q.codes.shape(), DType::u8);
          cuda_.kernels().pack_codes(stream(), {view(), raw.as<uint8_t>().data(), int32_t(piece.row), int32_t(q.rows()),
                                                int32_t(piece.col), int32_t(q.cols())});
        });
    scales_ = upload(grids.scales());
    if (form_.offsets)
      offsets_ = upload(grids.offsets());
    else
      zeros_ = upload(grids.zeros());
    row_scales_ = upload(std::span<const float>(grids.row_scales()));
  }

  void pack_floats(const Pieces& w) {
    codes_ = zero_codes();
    row_scales_ = cuda_.memory->kept({form_.rows}, DType::f32);
    each_piece(
        w, [](const Piece&) {},
        [&](const Piece& piece) {
          const auto& t = std::get<Tensor>(piece.weight);
          const std::vector<float> powers = row_powers(t);
          Tensor own = row_scales_.rows(piece.row, piece.row + t.shape()[0]);
          device().upload(own.data(), powers.data(), powers.size() * 4);
          const Tensor raw = cuda_.memory->upload(t.data(), {int64_t(t.bytes())}, DType::u8);
          cuda_.kernels().pack_floats(stream(), {view(), raw.data(), stored_type(t.dtype()), int32_t(piece.row),
                                                 int32_t(t.shape()[0]), int32_t(piece.col), int32_t(t.shape()[1])});
        });
  }
  /// Pieces of float matrices are whole rows.
  std::vector<float> row_powers(const Tensor& t) const {
    std::vector<float> out(size_t(t.shape()[0]), 1.f);
    if (cuda_.half == cuda::Half::bf16) return out;
    const Tensor wide = t.to(DType::f32);
    for (int64_t r = 0; r < t.shape()[0]; ++r) {
      float most = 0;
      for (float v : wide.rows(r, r + 1).as<float>()) most = std::max(most, std::abs(v));
      out[size_t(r)] = power_for(most);
    }
    return out;
  }

  void pack_dense(const Pieces& w) {
    codes_ = cuda_.memory->kept({form_.rows, form_.cols}, DType::f32);
    each_piece(
        w, [](const Piece&) {},
        [&](const Piece& piece) {
          const auto& t = std::get<Tensor>(piece.weight);
          Tensor own = codes_.rows(piece.row, piece.row + t.shape()[0]);
          device().upload(own.data(), t.data(), t.bytes());
        });
  }

  /// Reads pieces on all threads; `host` is called by each, `gpu` by one at a time.
  template <class Host, class Gpu>
  void each_piece(const Pieces& w, const Host& host, const Gpu& gpu) {
    std::mutex one;
    cuda_.pool.each(w.count, [&](int64_t i) {
      const Piece piece = w.read(i);
      host(piece);
      const std::lock_guard lock(one);
      gpu(piece);
    });
  }
  cuda::Device& device() const { return cuda_.memory->device(); }
  void* stream() const { return device().stream(); }

  CudaForm form_;
  Tensor order_, inputs_;  // on the host, to be compared
  CudaContext& cuda_;
  Tensor bias_, order_at_, inputs_at_, codes_, scales_, zeros_, offsets_, row_scales_;
};

}  // namespace

int32_t* CudaContext::zero_counters(int64_t tiles) {
  if (!counters || counters.shape()[0] < tiles)
    counters = memory->zeros({std::max<int64_t>(2 * tiles, 4096)}, DType::i32);
  return counters.as<int32_t>().data();
}

float* CudaContext::room_for_parts(int64_t floats) {
  if (!parts || parts.shape()[0] < floats) parts = memory->empty({floats}, DType::f32);
  return parts.as<float>().data();
}

std::unique_ptr<Linear> cuda_linear(const Pieces& w, const Tensor* bias, CudaContext& cuda) {
  return std::make_unique<CudaLinear>(w, bias, cuda);
}

int64_t cuda_linear_bytes(const Pieces& w) {
  const CudaForm f = form_of(w);
  if (f.bits == 32) return f.rows * f.cols * 4;
  return f.code_bytes() + (f.bits == 16 ? 0 : f.grids() * (f.scale_bytes() + (f.offsets ? f.scale_bytes() : 1)));
}

int64_t cuda_linear_memory(const Pieces& w, bool bias) {
  const CudaForm f = form_of(w);
  const int64_t grids = f.bits <= 8 ? f.grids() : 0;
  int64_t bytes = 0;
  for (const int64_t part : {f.bits == 32 ? f.rows * f.cols * 4 : f.code_bytes(), grids * f.scale_bytes(),
                             grids * (f.offsets ? f.scale_bytes() : 1), f.bits == 32 ? 0 : f.rows * 4,
                             bias ? f.rows * 4 : 0, w.order ? f.cols * 4 : 0, w.inputs ? f.cols * 4 : 0})
    if (part) bytes += CudaMemory::kept_bytes(part);
  return bytes;
}

int64_t cuda_slice_bytes(const Pieces& w) {
  const CudaForm f = form_of(w);
  return f.bits <= 8 ? CudaMemory::working_bytes(slice_bytes(f)) : 0;
}

void cuda_linears(std::span<const Linear* const> f, const Tensor& x, std::span<Tensor> y, int64_t batch) {
  for (size_t begin = 0, end = 0; begin < f.size(); begin = end) {
    std::vector<const CudaLinear*> alike;
    for (; end < f.size(); ++end) {
      const auto& l = static_cast<const CudaLinear&>(*f[end]);
      if (!alike.empty() && !alike[0]->reads_like(l)) break;
      alike.push_back(&l);
    }
    CudaLinear::together(alike, {x}, y.subspan(begin, end - begin), batch);
  }
}

bool cuda_activated(cuda::Map map, const Tensor& gate, const Tensor* up, const Linear& down, Tensor& y, int64_t batch) {
  const auto* l = static_cast<const CudaLinear*>(&down);
  if (l->reads_floats()) return false;
  CudaLinear::together({&l, 1}, {gate, up, map}, {&y, 1}, batch);
  return true;
}

}  // namespace awq
