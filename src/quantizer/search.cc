#include "quantizer/search.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>

namespace awq {
namespace {

using kernels::kPanel;

constexpr int64_t kSearchBand = 48;  // rows of a matrix a job: eight register tiles of gemm

using Vector = std::span<const float>;

void add_weights(std::span<const float> row, size_t g, std::vector<double>& sum) {
  for (size_t i = 0; i < row.size(); i += g) {
    float largest = 0;
    for (size_t c = i; c < i + g; ++c) largest = std::max(largest, std::abs(row[c]));
    for (size_t c = i; c < i + g; ++c) sum[c] += double(std::abs(row[c]) / (largest + 1e-6f));
  }
}

/// Sums over rows, in parts of a fixed size that are added in order.
void add_weights(const Host& host, const Rows& w, size_t g, std::vector<double>& sum) {
  constexpr int64_t kPart = 512;
  std::vector<std::vector<double>> parts(size_t((w.rows + kPart - 1) / kPart));
  host.pool.each(int64_t(parts.size()), [&](int64_t i) {
    std::vector<double>& part = parts[size_t(i)];
    part.resize(size_t(w.cols));
    std::vector<float> row(part.size());
    for (int64_t r = i * kPart; r < std::min((i + 1) * kPart, w.rows); ++r) {
      w.read(r, 1, row.data());
      add_weights(row, g, part);
    }
  });
  for (const auto& part : parts)
    for (size_t c = 0; c < sum.size(); ++c) sum[c] += part[c];
}

}  // namespace

std::vector<float> weight_mean(const Host& host, std::span<const Rows> weights, int group_size) {
  std::vector<double> sum(size_t(weights.front().cols));
  int64_t rows = 0;
  for (const Rows& w : weights) {
    rows += w.rows;
    add_weights(host, w, size_t(group_size), sum);
  }
  std::vector<float> mean;
  for (double v : sum) mean.push_back(float(v / double(rows)));
  return mean;
}

std::vector<Candidate> candidates(int steps) {
  std::vector<Candidate> c;
  for (int i = 0; i <= steps; ++i) {
    const float ratio = float(i) / float(steps);
    c.push_back({ratio, false});
    c.push_back({ratio, true});
  }
  return c;
}

std::vector<float> scales_of(Candidate c, std::span<const float> mean_abs, std::span<const float> weight_mean) {
  std::vector<float> s(mean_abs.size(), 1.f);
  if (c.identity()) return s;
  for (size_t i = 0; i < s.size(); ++i) {
    s[i] = std::pow(mean_abs[i], c.ratio);
    if (c.weight_term) s[i] /= std::pow(weight_mean[i], 1 - c.ratio) + 1e-4f;
    s[i] = std::max(s[i], 1e-4f);
  }
  const auto [low, high] = std::minmax_element(s.begin(), s.end());
  const float middle = std::sqrt(*low) * std::sqrt(*high);
  for (float& v : s) v /= middle;
  return s;
}

std::vector<float> tied(std::span<const float> channels, int tied_heads, int head_dim) {
  std::vector<float> out(channels.size());
  const auto d = size_t(head_dim), span = d * size_t(tied_heads);
  for (size_t kv = 0; kv < channels.size(); kv += span)
    for (size_t i = 0; i < d; ++i) {
      float mean = 0;
      for (size_t h = 0; h < span; h += d) mean += channels[kv + h + i] / float(tied_heads);
      for (size_t h = 0; h < span; h += d) out[kv + h + i] = mean;
    }
  return out;
}

std::vector<double> gram_losses(const QuadraticForm& form, std::span<const Rows> weights,
                                std::span<const std::vector<float>> scales, const QuantSpec& spec) {
  std::vector<double> losses(scales.size());
  const auto add = [&](int64_t i) {
    for (const Rows& w : weights) losses[size_t(i)] += form.loss(w, effective(w, scales[size_t(i)], spec));
  };
  const auto n = int64_t(scales.size());
  ThreadPool& pool = form.host().pool;
  if (n >= 4 * pool.size())
    pool.each(n, add);  // of few rows, whose parts would keep threads waiting for one another
  else
    for (int64_t i = 0; i < n; ++i) add(i);
  return losses;
}

double weight_error(const Host& host, const Rows& w, const QMatrix& rounded) {
  std::vector<double> error(size_t((w.rows + kSearchBand - 1) / kSearchBand)), energy(error.size());
  host.pool.each(int64_t(error.size()), [&](int64_t i) {
    const int64_t first = i * kSearchBand, m = std::min(kSearchBand, w.rows - first);
    Tensor before = Tensor::empty({m, w.cols}, DType::f32), after = Tensor::empty({m, w.cols}, DType::f32);
    const auto a = before.as<float>(), b = after.as<float>();
    w.read(first, m, a.data());
    dequantize(rounded, first, m, b.data());
    for (size_t k = 0; k < a.size(); ++k) {
      error[size_t(i)] += double(b[k] - a[k]) * double(b[k] - a[k]);
      energy[size_t(i)] += double(a[k]) * double(a[k]);
    }
  });
  const double all = std::accumulate(energy.begin(), energy.end(), 0.0);
  return all > 0 ? std::accumulate(error.begin(), error.end(), 0.0) / all : 0;
}

double relative_loss(const Host& host, const Rows& w, const Rows& rounded, const Gram& gram, Vector divisors) {
  const QuadraticForm form(host, gram);
  const double energy = form.energy(w, divisors);
  return energy > 0 ? form.loss(w, rounded, divisors) / energy : 0;
}

namespace {

/// Each group's block of C / (s s^T), [g][g], and what a product reads past the last row.
class DiagonalBlocks {
 public:
  DiagonalBlocks(const Gram& gram, Vector divisors, int64_t g) : g_(g) {
    const int64_t groups = gram.channels() / g;
    values_ = Tensor::zeros({groups * g * g + kPanel}, DType::f32);
    float* to = values_.as<float>().data();
    for (int64_t k = 0; k < groups * g; k += g)
      for (int64_t i = k; i < k + g; ++i)
        for (int64_t j = k; j < k + g; ++j)
          *to++ = gram.at(i, j) / (divisors.empty() ? 1 : divisors[size_t(i)] * divisors[size_t(j)]);
  }
  const float* of(int64_t group) const { return values_.as<float>().data() + group * g_ * g_; }

 private:
  int64_t g_;
  Tensor values_;
};

double dot(const float* a, const float* b, int64_t n) {
  double sum[8] = {};
  for (int64_t i = 0; i < n; i += 8)
    for (int64_t lane = 0; lane < 8; ++lane) sum[lane] += double(a[i + lane]) * double(b[i + lane]);
  return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

/// The ranges of some rows in one group of columns.
class GroupRanges {
 public:
  /// `w` [rows] at steps of `cols`, `block` [g][g].
  GroupRanges(const kernels::KernelSet& k, const float* w, int64_t rows, int64_t cols, const float* block,
              int64_t group, const RoundGroup& round)
      : k_(k), w_(w), cols_(cols), block_(block), group_(group), round_(round) {
    for (size_t r = 0; r < size_t(rows); ++r) whole_.push_back(range_of(weights(r)));
    best_ = whole_;
    loss_.assign(whole_.size(), INFINITY);
    errors_.resize(whole_.size() * size_t(group));
    product_.resize(errors_.size());
  }

  std::vector<Range> search(RangeSteps steps) {
    const auto both = [&](size_t r, float s) { return whole_[r].clipped(s * whole_[r].largest()); };
    const auto low = [&](size_t r, float s) { return Range{s * whole_[r].low, best_[r].high}; };
    const auto high = [&](size_t r, float s) { return Range{best_[r].low, s * whole_[r].high}; };
    shrink(0, steps.both, steps.patience, both);
    shrink(1, steps.each + 1, steps.patience, low);
    shrink(1, steps.each + 1, steps.patience, high);
    return std::move(best_);
  }
  int64_t tried() const { return tried_; }

 private:
  Vector weights(size_t row) const { return {w_ + int64_t(row) * cols_, size_t(group_)}; }

  /// Steps [begin, end) of one direction, for the rows that have not given it up.
  template <class F>
  void shrink(int begin, int end, int patience, const F& range_for) {
    std::vector<size_t> active(whole_.size());
    std::iota(active.begin(), active.end(), size_t(0));
    std::vector<int> in_vain(whole_.size());
    for (int i = begin; i < end && !active.empty(); ++i) {
      const float s = 1.f - 0.05f * float(i);
      try_rows(
          active, [&](size_t r) { return range_for(r, s); }, in_vain);
      std::erase_if(active, [&](size_t r) { return in_vain[r] == patience; });
    }
  }

  template <class F>
  void try_rows(const std::vector<size_t>& rows, const F& range_for, std::vector<int>& in_vain) {
    const auto g = size_t(group_);
    std::vector<Range> ranges;
    for (size_t i = 0; i < rows.size(); ++i) {
      ranges.push_back(range_for(rows[i]));
      const auto in = weights(rows[i]);
      round_(in, ranges[i], &errors_[i * g]);
      for (size_t c = 0; c < g; ++c) errors_[i * g + c] -= in[c];
    }
    multiply(rows.size());
    tried_ += int64_t(rows.size());
    for (size_t i = 0; i < rows.size(); ++i) {
      const size_t r = rows[i];
      const double loss = dot(&errors_[i * g], &product_[i * g], group_);
      const bool better = loss < loss_[r];
      in_vain[r] = better ? 0 : in_vain[r] + 1;
      if (better) loss_[r] = loss, best_[r] = ranges[i];
    }
  }

  void multiply(size_t rows) {
    const int64_t g = group_;
    k_.gemm_f32({.a = errors_.data(),
                 .a_row = g,
                 .b = block_,
                 .b_panel = kPanel,
                 .b_k = g,
                 .c = product_.data(),
                 .c_row = g,
                 .m = int32_t(rows),
                 .n = int32_t(g),
                 .k = int32_t(g),
                 .accumulate = false});
  }

  const kernels::KernelSet& k_;
  const float* w_;
  int64_t cols_;
  const float* block_;
  int64_t group_;
  const RoundGroup& round_;
  std::vector<Range> whole_, best_;
  std::vector<double> loss_;
  std::vector<float> errors_, product_;
  int64_t tried_ = 0;
};

}  // namespace

std::vector<Range> best_ranges(const Host& host, const Rows& w, const Gram& gram, const QuantSpec& spec,
                               Vector divisors, RangeSteps steps, int64_t* tried) {
  const auto round = [&spec](Vector group, Range r, float* out) {
    round_to(group, grid_of(r, spec), spec.levels(), out);
  };
  return best_ranges(host, w, gram, spec.of_width(w.cols).group_size, round, divisors, steps, tried);
}

std::vector<Range> best_ranges(const Host& host, const Rows& w, const Gram& gram, int group_size,
                               const RoundGroup& round, Vector divisors, RangeSteps steps, int64_t* tried) {
  const int64_t g = group_size, groups = w.cols / g;
  const DiagonalBlocks blocks(gram, divisors, g);
  std::vector<Range> ranges(size_t(w.rows * groups));
  std::atomic<int64_t> all_tried = 0;
  host.pool.each((w.rows + kSearchBand - 1) / kSearchBand, [&](int64_t job) {
    const int64_t first = job * kSearchBand, m = std::min(kSearchBand, w.rows - first);
    Tensor rows = Tensor::empty({m, w.cols}, DType::f32);
    const auto band = rows.as<float>();
    w.read(first, m, band.data());
    for (int64_t k = 0; k < groups; ++k) {
      GroupRanges group(host.kernels, band.data() + k * g, m, w.cols, blocks.of(k), g, round);
      const std::vector<Range> best = group.search(steps);
      all_tried += group.tried();
      for (int64_t r = 0; r < m; ++r) ranges[size_t((first + r) * groups + k)] = best[size_t(r)];
    }
  });
  if (tried) *tried += all_tried;
  return ranges;
}

double share_cut(const Rows& w, std::span<const Range> ranges) {
  std::vector<float> row(size_t(w.cols));
  const size_t g = size_t(w.rows) * row.size() / ranges.size();
  size_t cut = 0, i = 0;
  for (int64_t r = 0; r < w.rows; ++r) {
    w.read(r, 1, row.data());
    for (size_t c = 0; c < row.size(); c += g, ++i) cut += ranges[i] != range_of(Vector(row).subspan(c, g));
  }
  return double(cut) / double(ranges.size());
}

}  // namespace awq
