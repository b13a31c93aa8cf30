// Coordinate descent over codes and scales under a layer's Gram matrix. With e the errors of a row as the layer's input
// sees them and P = e C, changing one weight by d changes the row's loss by 2 d P_j + d^2 C_jj. P is made for a window
// of columns from all of e and kept up to date within it, so that a sweep costs one product with C.
#include "quantizer/refine.h"

#include <cmath>

#include "model/cpu_tiles.h"
#include "quantizer/search.h"

namespace awq {
namespace {

using kernels::kPanel;

constexpr int64_t kBand = 48;         // rows at once: a multiple of the width of a panel
constexpr int64_t kTileBand = 128;    // the same on tiles: each panel of C is put in order once for all of them
constexpr int64_t kWindow = 128;      // columns
constexpr int64_t kAtOnce = 16;       // columns that are judged before one of them changes
constexpr float kRounding = 3 << 22;  // added and taken away it rounds to the nearest integer, to even ones at ties

struct Columns {
  int64_t begin, end;
  int64_t width() const { return end - begin; }
};

/// Where a sweep's windows lie: as many whole groups as there is room for, or parts of one.
struct Windows {
  int64_t cols, group;
  bool wide() const { return group > kWindow; }
  int64_t step() const { return wide() ? group : kWindow / group * group; }
  Columns around(int64_t j) const {
    const int64_t first = j / step() * step(), begin = first + (j - first) / kWindow * kWindow;
    return {begin, std::min({cols, first + step(), begin + kWindow})};
  }
};

/// C's blocks of a window's columns by themselves, whole, and what the descent needs of its diagonal.
class Curvature {
 public:
  Curvature(const Gram& gram, const Windows& windows, std::span<const float> divisors, float damping) {
    const int64_t n = gram.channels();
    blocks_ = Tensor::zeros({n * kWindow + kPanel}, DType::f32);
    for (int64_t j = 0; j < n; ++j) {
      const Columns w = windows.around(j);
      for (int64_t i = w.begin; i < w.end; ++i) blocks_.as<float>()[size_t(j * kWindow + i - w.begin)] = gram.at(i, j);
      inverse_.push_back(divisors.empty() ? 1 : 1 / divisors[size_t(j)]);
      steps_.push_back(gram.at(j, j) * inverse_.back() * inverse_.back());
    }
    double sum = 0;
    for (float v : steps_) sum += double(v);
    damping_ = damping * float(sum / double(n));
    for (float& v : steps_) v = v + damping_ > 0 ? 1 / (v + damping_) : 0;
  }

  /// Row j of the block of its window, [kWindow].
  const float* block_row(int64_t j) const { return blocks_.as<float>().data() + j * kWindow; }
  const float* inverse() const { return inverse_.data(); }  // of divisors
  const float* steps() const { return steps_.data(); }      // 1 / curvature by the weight that is stored; 0: none
  float damping() const { return damping_; }

 private:
  Tensor blocks_;
  std::vector<float> inverse_, steps_;
  float damping_ = 0;
};

/// Rows x and products with C: on tiles of bfloat16 where `form` has them, with rounding of 2^-9 of each value of x; in
/// floats otherwise, from the triangle of the Gram matrix, which needs x both ways round.
class Factor {
 public:
  Factor(const QuadraticForm& form, const Curvature& curvature, int64_t m)
      : form_(form), curvature_(curvature), m_(m), n_(form.gram().channels()), rows_(size_t(m * n_)) {
    if (form.panels())
      tiles_.emplace(form.host().kernels, rows_.data(), m, n_);
    else
      columns_.resize(size_t(n_ * kBand + kPanel));
  }
  Factor(const Factor&) = delete;  // tiles read the rows

  const float* row(int64_t r) const { return rows_.data() + r * n_; }
  void set(int64_t r, int64_t c, float v) {
    rows_[size_t(r * n_ + c)] = v;
    if (!tiles_) columns_[size_t(c * kBand + r)] = v;
  }
  /// What was set in whole windows counts from here on.
  void settle(Columns some) {
    if (tiles_)
      tiles_->prepare_columns(some.begin / kTileCols * kTileCols, (some.end + kTileCols - 1) / kTileCols * kTileCols);
  }

  /// p [m][kWindow] = x C for columns `out`, a window.
  void product(Columns out, float* p) const {
    if (tiles_) return on_tiles(out, p);
    for (int64_t begin = out.begin; begin < out.end;) {
      const int64_t end = std::min(out.end, (begin / Gram::kTile + 1) * Gram::kTile);
      in_floats({begin, end}, begin - out.begin, p + begin - out.begin);
      begin = end;
    }
  }

 private:
  static constexpr int64_t kTileCols = 32;

  void on_tiles(Columns out, float* p) const {
    const int64_t first = out.begin / kPanel, last = (out.end + kPanel - 1) / kPanel;
    form_.host().kernels.tiles_bf16(form_.panels() + first * n_ * kPanel, int32_t((last - first) * kPanel),
                                    tiles_->view, p, kWindow, 0, int32_t(last - first), 0, int32_t(n_));
  }

  /// `out` lies in one tile of the Gram matrix, `at` columns behind its window's begin.
  void in_floats(Columns out, int64_t at, float* p) const {
    const Gram& gram = form_.gram();
    const int64_t width = out.width(), tile = out.begin / Gram::kTile;
    float turned[Gram::kTile * kBand + kPanel] = {};
    for (int64_t r = 0; r < m_; ++r) std::fill_n(p + r * kWindow, width, 0.f);
    gemm(row(0), n_, gram.tile(tile) + out.begin % Gram::kTile, Gram::kTile, p, kWindow, m_, width, out.begin);
    gemm(row(0) + out.begin, n_, curvature_.block_row(out.begin) + at, kWindow, p, kWindow, m_, width, width);
    // Below the diagonal C is its transpose, and so is what comes out.
    for (int64_t k = out.end; k < n_;) {
      const int64_t t = k / Gram::kTile, end = t * Gram::kTile + gram.width(t);
      gemm(gram.tile(t) + out.begin * Gram::kTile + k % Gram::kTile, Gram::kTile, columns_.data() + k * kBand, kBand,
           turned, kBand, width, m_, end - k);
      k = end;
    }
    for (int64_t r = 0; r < m_; ++r)
      for (int64_t j = 0; j < width; ++j) p[r * kWindow + j] += turned[j * kBand + r];
  }

  void gemm(const float* a, int64_t a_row, const float* b, int64_t b_k, float* c, int64_t c_row, int64_t m, int64_t n,
            int64_t k) const {
    if (k <= 0) return;
    form_.host().kernels.gemm_f32({.a = a,
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

  const QuadraticForm& form_;
  const Curvature& curvature_;
  int64_t m_, n_;
  std::vector<float> rows_, columns_;  // [m][n], [n][kBand]
  std::optional<TileRows> tiles_;
};

/// Some rows of a layer.
class Band {
 public:
  Band(const QuadraticForm& form, const Curvature& c, const Windows& windows, const Rows& w, Columns rows, QMatrix& q)
      : form_(form),
        c_(c),
        windows_(windows),
        spec_(q.spec),
        n_(w.cols),
        m_(rows.width()),
        w_(size_t(m_ * n_)),
        e_(form, c, m_),
        level_(size_t(spec_.group_size)),
        residual_(level_),
        p_(size_t(m_ * kWindow)),
        codes_(q.codes.as<uint8_t>().data() + rows.begin * n_),
        zeros_(q.zeros.as<uint8_t>().data() + rows.begin * q.groups()),
        scales_(q.scales.as<float>().data() + rows.begin * q.groups()) {
    w.read(rows.begin, m_, w_.data());
    for (int64_t r = 0; r < m_; ++r) set_errors(r, {0, n_});
    e_.settle({0, n_});
  }

  void sweep(bool scales) {
    for (int64_t begin = 0; begin < n_; begin += windows_.step()) {
      const Columns some{begin, std::min(n_, begin + windows_.step())};
      windows_.wide() ? change_wide(some, scales) : change_groups(some, scales);
    }
  }

 private:
  int64_t group(int64_t r, int64_t j) const { return (r * n_ + j) / spec_.group_size; }
  float level(int64_t r, int64_t j) const { return float(int(codes_[r * n_ + j]) - int(zeros_[group(r, j)])); }
  float residual(int64_t r, int64_t j) const { return level(r, j) * scales_[group(r, j)] - w_[size_t(r * n_ + j)]; }
  float* p(int64_t r, int64_t j) { return p_.data() + r * kWindow + j - window_.begin; }

  void open(Columns window) {
    window_ = window;
    e_.product(window, p_.data());
  }

  /// A window of whole groups, each with its scale before the next one.
  void change_groups(Columns window, bool scales) {
    open(window);
    for (int64_t begin = window.begin; begin < window.end; begin += spec_.group_size) {
      const Columns own{begin, begin + spec_.group_size};
      for (int64_t r = 0; r < m_; ++r) descend(r, own);
      if (scales) rescale(own);
    }
    e_.settle(window);
  }

  /// A group of many windows.
  void change_wide(Columns g, bool scales) {
    for (Columns w = windows_.around(g.begin); w.begin < g.end; w = next(w, g)) {
      open(w);
      for (int64_t r = 0; r < m_; ++r) descend(r, w);
      e_.settle(w);
    }
    if (scales) rescale_wide(g);
  }
  static Columns next(Columns w, Columns in) { return {w.end, std::min(in.end, w.end + kWindow)}; }

  void descend(int64_t r, Columns some) {
    uint8_t best[kAtOnce];
    for (int64_t at = some.begin; at < some.end;) {
      const int64_t n = std::min(kAtOnce, some.end - at);
      const uint8_t* now = codes_ + r * n_ + at;
      judge(r, at, n, best);
      const int64_t same = std::mismatch(now, now + n, best).first - now;
      if (same < n) change(r, at + same, best[same]);
      at += std::min(n, same + 1);
    }
  }

  /// The best codes for columns [j, j + n) of a group, each were it alone to change.
  void judge(int64_t r, int64_t j, int64_t n, uint8_t* best) {
    const float scale = scales_[group(r, j)], inverse = 1 / scale, zero = float(zeros_[group(r, j)]),
                high = float(spec_.levels()), damping = c_.damping();
    const float *w = w_.data() + r * n_ + j, *product = p(r, j), *a = c_.inverse() + j, *step = c_.steps() + j;
    const uint8_t* codes = codes_ + r * n_ + j;
    for (int64_t i = 0; i < n; ++i) {
      const float now = float(codes[i]), residual = (now - zero) * scale - w[i];
      const float slope = product[i] * a[i] + damping * residual;
      const float wanted = std::min(std::max(now - slope * step[i] * inverse, 0.f), high);
      best[i] = uint8_t(int(wanted + kRounding - kRounding));
    }
  }

  /// P is kept up to date from the group's begin: its scale comes next.
  void change(int64_t r, int64_t j, uint8_t code) {
    codes_[r * n_ + j] = code;
    const float now = residual(r, j) * c_.inverse()[j], by = now - e_.row(r)[j];
    e_.set(r, j, now);
    const int64_t first = std::max(window_.begin, j / spec_.group_size * spec_.group_size);
    const float* row = c_.block_row(j) + first - window_.begin;
    float* sums = p(r, first);
    for (int64_t i = 0; i < window_.end - first; ++i) sums[i] += by * row[i];
  }
  /// Of whole groups.
  void set_errors(int64_t r, Columns some) {
    for (int64_t begin = some.begin; begin < some.end; begin += spec_.group_size) {
      const float scale = scales_[group(r, begin)], zero = float(zeros_[group(r, begin)]);
      for (int64_t j = begin; j < begin + spec_.group_size; ++j) {
        const auto i = size_t(r * n_ + j);
        e_.set(r, j, ((float(codes_[i]) - zero) * scale - w_[i]) * c_.inverse()[j]);
      }
    }
  }

  /// To the least of each row's loss along the levels of a group, which lies in the window.
  void rescale(Columns g) {
    const int64_t width = g.width();
    std::vector<float> u(size_t(m_ * width)), uc(u.size());
    for (int64_t r = 0; r < m_; ++r) seen_levels(r, g, u.data() + r * width);
    in_window(u.data(), g, g, uc.data(), width, false);
    for (int64_t r = 0; r < m_; ++r) {
      float* own = u.data() + r * width;
      step(r, g, dot(own, p(r, g.begin), width), dot(own, uc.data() + r * width, width));
      std::copy_n(e_.row(r) + g.begin, width, own);
      set_errors(r, g);
      for (int64_t j = 0; j < width; ++j) own[j] = e_.row(r)[g.begin + j] - own[j];
    }
    in_window(u.data(), g, {g.end, window_.end}, p(0, g.end), kWindow, true);
  }

  /// c [m][c_row] = or += x [m][in's width] times C's rows `in` of columns `out`.
  void in_window(const float* x, Columns in, Columns out, float* c, int64_t c_row, bool accumulate) const {
    if (out.width())
      form_.host().kernels.gemm_f32({.a = x,
                                     .a_row = in.width(),
                                     .b = c_.block_row(in.begin) + out.begin - window_.begin,
                                     .b_panel = kPanel,
                                     .b_k = kWindow,
                                     .c = c,
                                     .c_row = c_row,
                                     .m = int32_t(m_),
                                     .n = int32_t(out.width()),
                                     .k = int32_t(in.width()),
                                     .accumulate = accumulate});
  }

  /// The same for a group of many windows. Levels take the place of errors for a moment.
  void rescale_wide(Columns g) {
    const auto m = size_t(m_);
    std::vector<double> slope(m), curvature(m);
    std::vector<float> u(size_t(g.width()));
    add_along(g, slope);
    for (int64_t r = 0; r < m_; ++r) {
      seen_levels(r, g, u.data());
      for (int64_t j = 0; j < n_; ++j) e_.set(r, j, j < g.begin || j >= g.end ? 0 : u[size_t(j - g.begin)]);
    }
    e_.settle({0, n_});
    add_along(g, curvature);
    for (int64_t r = 0; r < m_; ++r) {
      step(r, g, slope[size_t(r)], curvature[size_t(r)]);
      set_errors(r, {0, n_});
    }
    e_.settle({0, n_});
  }

  /// to[r] += the levels of a group, as the layer's input sees them, times P.
  void add_along(Columns g, std::vector<double>& to) {
    float u[kWindow];
    for (Columns w = windows_.around(g.begin); w.begin < g.end; w = next(w, g)) {
      open(w);
      for (int64_t r = 0; r < m_; ++r) {
        seen_levels(r, w, u);
        to[size_t(r)] += dot(u, p(r, w.begin), w.width());
      }
    }
  }

  /// Of columns of one group, as the layer's input sees them.
  void seen_levels(int64_t r, Columns some, float* to) const {
    const float zero = float(zeros_[group(r, some.begin)]);
    const uint8_t* codes = codes_ + r * n_;
    for (int64_t j = some.begin; j < some.end; ++j) *to++ = (float(codes[j]) - zero) * c_.inverse()[j];
  }

  // Eight sums side by side, which a compiler may vectorize as they stand; groups are multiples of 32.
  static double dot(const float* x, const float* y, int64_t n) {
    double sum[8] = {};
    for (int64_t i = 0; i < n; i += 8)
      for (int64_t lane = 0; lane < 8; ++lane) sum[lane] += double(x[i + lane]) * double(y[i + lane]);
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
  }

  /// Changes a group's scale; `slope` and `curvature` are without the damping.
  void step(int64_t r, Columns g, double slope, double curvature) {
    float& scale = scales_[group(r, g.begin)];
    const float zero = float(zeros_[group(r, g.begin)]);
    for (int64_t j = 0; j < g.width(); ++j) {
      level_[size_t(j)] = float(codes_[r * n_ + g.begin + j]) - zero;
      residual_[size_t(j)] = level_[size_t(j)] * scale - w_[size_t(r * n_ + g.begin + j)];
    }
    slope += double(c_.damping()) * dot(level_.data(), residual_.data(), g.width());
    curvature += double(c_.damping()) * dot(level_.data(), level_.data(), g.width());
    if (!(curvature > 0)) return;
    const float best = rounded_scale(float(double(scale) - slope / curvature), spec_);
    const double by = double(best) - double(scale);
    if (best > scale / 2 && best < scale * 2 && by * (2 * slope + by * curvature) < 0) scale = best;
  }

  const QuadraticForm& form_;
  const Curvature& c_;
  const Windows& windows_;
  const QuantSpec& spec_;
  int64_t n_, m_;
  std::vector<float> w_;                 // [m][n]
  Factor e_;                             // errors
  std::vector<float> level_, residual_;  // of a group
  Columns window_{};
  std::vector<float> p_;  // e C for the window, [m][kWindow]
  uint8_t *codes_, *zeros_;
  float* scales_;
};

}  // namespace

void refine(const QuadraticForm& form, const Rows& w, std::span<const float> divisors, const Refinement& steps,
            QMatrix& q) {
  const Windows windows{w.cols, q.spec.group_size};
  const Curvature curvature(form.gram(), windows, divisors, steps.damping);
  const int64_t band = form.panels() ? kTileBand : kBand;
  form.host().pool.each((w.rows + band - 1) / band, [&](int64_t i) {
    Band some(form, curvature, windows, w, {i * band, std::min(w.rows, (i + 1) * band)}, q);
    for (int round = 0; round < steps.rounds; ++round) some.sweep(true);
    some.sweep(false);
  });
}

int64_t refine_bytes(int64_t cols) { return kWindow * cols * int64_t(sizeof(float)); }

double refine_operations(const Rows& w, const Refinement& steps) {
  return 2 * QuadraticForm::operations(w) * (steps.rounds + 1);
}

}  // namespace awq
