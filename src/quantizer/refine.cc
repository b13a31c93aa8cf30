// Coordinate descent over codes and scales under a layer's Gram matrix. With e the errors of a row as the layer's input
// sees them and P = e C, changing one weight by d changes the row's loss by 2 d P_j + d^2 C_jj. P is made for 64
// columns at a time from all of e and kept up to date within them, so that a sweep costs one product with C.
#include "quantizer/refine.h"

#include <cmath>

#include "quantizer/search.h"

namespace awq {
namespace {

using kernels::kPanel;

constexpr int64_t kBand = 48;  // rows at once: a multiple of the width of a panel

/// C's blocks on the diagonal, whole, and what the descent needs of its diagonal.
class Curvature {
 public:
  Curvature(const Gram& gram, std::span<const float> divisors, float damping) : gram_(gram) {
    const int64_t n = gram.channels();
    squares_ = Tensor::zeros({gram.tiles() * Gram::kTile * Gram::kTile + kPanel}, DType::f32);
    for (int64_t j = 0; j < n; ++j) {
      const int64_t tile = j / Gram::kTile, last = tile * Gram::kTile + gram.width(tile);
      for (int64_t i = tile * Gram::kTile; i < last; ++i) row(j)[i % Gram::kTile] = gram.at(i, j);
      inverse_.push_back(divisors.empty() ? 1 : 1 / divisors[size_t(j)]);
      scaled_.push_back(gram.at(j, j) * inverse_.back() * inverse_.back());
    }
    double sum = 0;
    for (float v : scaled_) sum += double(v);
    damping_ = damping * float(sum / double(n));
  }

  const Gram& gram() const { return gram_; }
  /// Row j of the block of its tile, [kTile].
  const float* block_row(int64_t j) const { return squares_.as<float>().data() + j * Gram::kTile; }
  float inverse(int64_t j) const { return inverse_[size_t(j)]; }
  float damping() const { return damping_; }
  float of(int64_t j) const { return scaled_[size_t(j)] + damping_; }  // by the weight that is stored

 private:
  float* row(int64_t j) { return squares_.as<float>().data() + j * Gram::kTile; }

  const Gram& gram_;
  Tensor squares_;  // [tiles][kTile][kTile]
  std::vector<float> inverse_, scaled_;
  float damping_ = 0;
};

/// A matrix of kBand rows both ways round: products with C's triangle need either.
class Both {
 public:
  explicit Both(int64_t cols) : cols_(cols), rows_(size_t(kBand * cols)), columns_(size_t(cols * kBand + kPanel)) {}
  const float* rows() const { return rows_.data(); }
  const float* columns() const { return columns_.data(); }
  float at(int64_t r, int64_t c) const { return rows_[size_t(r * cols_ + c)]; }
  void set(int64_t r, int64_t c, float v) { rows_[size_t(r * cols_ + c)] = columns_[size_t(c * kBand + r)] = v; }
  void add(int64_t r, int64_t c, float v) { set(r, c, at(r, c) + v); }

 private:
  int64_t cols_;
  std::vector<float> rows_, columns_;
};

/// Some rows of a layer.
class Band {
 public:
  Band(const kernels::KernelSet& k, const Curvature& c, const Rows& w, int64_t first, QMatrix& q)
      : k_(k),
        c_(c),
        spec_(q.spec),
        n_(w.cols),
        m_(std::min(kBand, w.rows - first)),
        w_(size_t(m_ * n_)),
        e_(n_),
        u_(q.spec.group_size > Gram::kTile ? n_ : 0),
        codes_(q.codes.as<uint8_t>().data() + first * n_),
        zeros_(q.zeros.as<uint8_t>().data() + first * q.groups()),
        scales_(q.scales.as<float>().data() + first * q.groups()) {
    w.read(first, m_, w_.data());
    for (int64_t r = 0; r < m_; ++r)
      for (int64_t j = 0; j < n_; ++j) e_.set(r, j, residual(r, j) * c_.inverse(j));
  }

  void sweep(bool scales) {
    for (int64_t begin = 0; begin < n_; begin += spec_.group_size) {
      const int64_t end = begin + spec_.group_size;
      for (int64_t j = begin; j < end; j += Gram::kTile) {
        const Columns some{j, std::min(end, j + Gram::kTile)};
        product(e_, some, {0, n_});
        for (int64_t r = 0; r < m_; ++r) descend(r, some);
      }
      if (scales) rescale({begin, end});
    }
  }

 private:
  struct Columns {
    int64_t begin, end;
  };

  int64_t group(int64_t r, int64_t j) const { return (r * n_ + j) / spec_.group_size; }
  float level(int64_t r, int64_t j) const { return float(int(codes_[r * n_ + j]) - int(zeros_[group(r, j)])); }
  float residual(int64_t r, int64_t j) const { return level(r, j) * scales_[group(r, j)] - w_[size_t(r * n_ + j)]; }
  float* p(int64_t r) { return p_ + r * Gram::kTile; }

  void gemm(const float* a, int64_t a_row, const float* b, int64_t b_k, float* c, int64_t c_row, int64_t m, int64_t n,
            int64_t k) const {
    if (k <= 0) return;
    k_.gemm_f32({.a = a,
                 .a_row = a_row,
                 .b = b,
                 .b_panel = kPanel,
                 .b_k = b_k,
                 .c = c,
                 .c_row = c_row,
                 .m = int32_t(m),
                 .n = int32_t(n),
                 .k = int32_t(k),
                 .accumulate = true});
  }

  /// p = x C for columns `out`, which lie in one tile, from columns `in` of x alone, which hold them.
  void product(const Both& x, Columns out, Columns in) {
    const Gram& gram = c_.gram();
    const int64_t width = out.end - out.begin, tile = out.begin / Gram::kTile, at = out.begin % Gram::kTile;
    std::fill_n(p_, kBand * Gram::kTile, 0.f);
    std::fill_n(turned_, Gram::kTile * kBand, 0.f);
    gemm(x.rows() + in.begin, n_, gram.tile(tile) + in.begin * Gram::kTile + at, Gram::kTile, p_, Gram::kTile, m_,
         width, out.begin - in.begin);
    gemm(x.rows() + out.begin, n_, c_.block_row(out.begin) + at, Gram::kTile, p_, Gram::kTile, m_, width, width);
    // Below the diagonal C is its transpose, and so is what comes out.
    for (int64_t k = out.end; k < in.end;) {
      const int64_t t = k / Gram::kTile, end = std::min(in.end, t * Gram::kTile + gram.width(t));
      gemm(gram.tile(t) + out.begin * Gram::kTile + k % Gram::kTile, Gram::kTile, x.columns() + k * kBand, kBand,
           turned_, kBand, width, m_, end - k);
      k = end;
    }
    for (int64_t r = 0; r < m_; ++r)
      for (int64_t j = 0; j < width; ++j) p(r)[j] += turned_[j * kBand + r];
  }

  void descend(int64_t r, Columns some) {
    const auto [begin, end] = some;
    for (int64_t j = begin; j < end; ++j) {
      const float curvature = c_.of(j), a = c_.inverse(j), scale = scales_[group(r, j)];
      if (!(curvature > 0)) continue;
      const float slope = p(r)[j - begin] * a + c_.damping() * residual(r, j);
      const float now = level(r, j), low = -float(zeros_[group(r, j)]), high = low + float(spec_.levels());
      const float best = std::nearbyint(std::clamp(now - slope / curvature / scale, low, high));
      if (best != now) change(r, j, begin, end, (best - now) * scale * a, uint8_t(best - low));
    }
  }

  void change(int64_t r, int64_t j, int64_t begin, int64_t end, float by, uint8_t code) {
    codes_[r * n_ + j] = code;
    e_.add(r, j, by);
    const float* row = c_.block_row(j) + begin % Gram::kTile;
    for (int64_t i = 0; i < end - begin; ++i) p(r)[i] += by * row[i];
  }

  /// To the least of each row's loss along the group's levels.
  void rescale(Columns g) {
    const bool wide = g.end - g.begin > Gram::kTile;
    double slope[kBand] = {}, curvature[kBand] = {};
    if (wide) {
      for (int64_t r = 0; r < m_; ++r)
        for (int64_t j = g.begin; j < g.end; ++j) u_.set(r, j, level(r, j) * c_.inverse(j));
      for (int64_t j = g.begin; j < g.end; j += Gram::kTile) {
        const Columns some{j, std::min(g.end, j + Gram::kTile)};
        product(u_, some, g);
        add_along(some, curvature);
        product(e_, some, {0, n_});
        add_along(some, slope);
      }
    } else {
      add_along(g, slope);
      for (int64_t r = 0; r < m_; ++r) curvature[r] = within(r, g.begin, g.end);
    }
    for (int64_t r = 0; r < m_; ++r) {
      for (int64_t j = g.begin; j < g.end; ++j) {
        slope[r] += double(c_.damping()) * double(level(r, j)) * double(residual(r, j));
        curvature[r] += double(c_.damping()) * double(level(r, j)) * double(level(r, j));
      }
      step(r, g.begin, g.end, slope[r], curvature[r]);
    }
  }

  /// to[r] += the levels of some columns, as the layer's input sees them, times p.
  void add_along(Columns some, double* to) {
    for (int64_t r = 0; r < m_; ++r)
      for (int64_t j = some.begin; j < some.end; ++j)
        to[r] += double(level(r, j) * c_.inverse(j)) * double(p(r)[j - some.begin]);
  }

  double within(int64_t r, int64_t begin, int64_t end) const {
    float u[Gram::kTile];
    for (int64_t j = begin; j < end; ++j) u[j - begin] = level(r, j) * c_.inverse(j);
    double sum = 0;
    for (int64_t j = begin; j < end; ++j) {
      const float* row = c_.block_row(j) + begin % Gram::kTile;
      float dot = 0;
      for (int64_t i = 0; i < end - begin; ++i) dot += u[i] * row[i];
      sum += double(u[j - begin]) * double(dot);
    }
    return sum;
  }

  void step(int64_t r, int64_t begin, int64_t end, double slope, double curvature) {
    float& scale = scales_[group(r, begin)];
    if (!(curvature > 0)) return;
    const float best = rounded_scale(float(double(scale) - slope / curvature), spec_);
    const double by = double(best) - double(scale);
    if (!(best > scale / 2 && best < scale * 2 && by * (2 * slope + by * curvature) < 0)) return;
    scale = best;
    for (int64_t j = begin; j < end; ++j) e_.set(r, j, residual(r, j) * c_.inverse(j));
  }

  const kernels::KernelSet& k_;
  const Curvature& c_;
  const QuantSpec& spec_;
  int64_t n_, m_;
  std::vector<float> w_;
  Both e_, u_;  // errors; levels of one group, where it is wider than a tile
  uint8_t *codes_, *zeros_;
  float* scales_;
  float p_[kBand * Gram::kTile], turned_[Gram::kTile * kBand + kPanel];
};

}  // namespace

void refine(const Host& host, const Rows& w, const Gram& gram, std::span<const float> divisors, const Refinement& steps,
            QMatrix& q) {
  const Curvature curvature(gram, divisors, steps.damping);
  host.pool.each((w.rows + kBand - 1) / kBand, [&](int64_t i) {
    Band band(host.kernels, curvature, w, i * kBand, q);
    for (int round = 0; round < steps.rounds; ++round) band.sweep(true);
    band.sweep(false);
  });
}

int64_t refine_bytes(int64_t cols, int threads) {
  return (Gram::kTile * cols + threads * (5 * cols + 2 * Gram::kTile) * kBand) * int64_t(sizeof(float));
}

double refine_operations(const Rows& w, const Refinement& steps) {
  return 2 * QuadraticForm::operations(w) * (steps.rounds + 1);
}

}  // namespace awq
