// Rivals of AWQ that no format of this program holds: codes of another kind, or activations that are rounded too.
#include <algorithm>
#include <array>
#include <cmath>

#include "eval/change.h"
#include "eval/hadamard.h"

namespace awq {
namespace {

using Row = std::span<float>;

// QLoRA, appendix E: quantiles of a normal distribution with zero among them, scaled to [-1, 1].
constexpr std::array<float, 16> kNormalFloat = {
    -1.0f,       -0.69619280f, -0.52507305f, -0.39491749f, -0.28444138f, -0.18477343f, -0.09105004f, 0.0f,
    0.07958030f, 0.16093020f,  0.24611230f,  0.33791524f,  0.44070983f,  0.56261700f,  0.72295684f,  1.0f};

void to_normal_float(Row group) {
  float largest = 0;
  for (float v : group) largest = std::max(largest, std::abs(v));
  if (largest == 0) return;
  for (float& v : group) {
    const auto nearer = [x = v / largest](float a, float b) { return std::abs(a - x) < std::abs(b - x); };
    v = *std::ranges::min_element(kNormalFloat, nearer) * largest;
  }
}

/// To integers of `bits` bits times a scale that puts `share` of the largest on the last of them.
void to_integers(Row row, int bits, float share) {
  const float top = float((1 << (bits - 1)) - 1);
  float largest = 0;
  for (float v : row) largest = std::max(largest, std::abs(v));
  if (largest == 0) return;
  const float scale = share * largest / top;
  for (float& v : row) v = std::clamp(std::nearbyint(v / scale), -top - 1, top) * scale;
}

/// The same with the share, 1.00 to 0.50, of the least squared error.
void to_integers_clipped(Row row, int bits) {
  const std::vector<float> original(row.begin(), row.end());
  std::vector<float> best;
  double least = INFINITY;
  for (int step = 0; step <= 10; ++step) {
    std::ranges::copy(original, row.begin());
    to_integers(row, bits, 1 - 0.05f * float(step));
    double error = 0;
    for (size_t i = 0; i < row.size(); ++i) error += std::pow(double(row[i]) - double(original[i]), 2);
    if (error < least) least = error, best.assign(row.begin(), row.end());
  }
  std::ranges::copy(best, row.begin());
}

using EachRow = std::function<void(Row)>;

Rows each_row(const Rows& w, EachRow change) {
  return {w.rows, w.cols, [w, change = std::move(change)](int64_t first, int64_t count, float* to) {
            w.read(first, count, to);
            for (int64_t r = 0; r < count; ++r) change({to + r * w.cols, size_t(w.cols)});
          }};
}

/// A layer whose inputs are changed, token by token, before they are multiplied.
class ChangedInput final : public Linear {
 public:
  ChangedInput(std::unique_ptr<Linear> f, EachRow change, ThreadPool& pool)
      : f_(std::move(f)), change_(std::move(change)), pool_(pool) {}
  void multiply(const Tensor& x, Tensor& y, int64_t batch) const override {
    Tensor mine = x.clone();
    const int64_t cols = x.shape()[1];
    pool_.run(x.shape()[0], 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) change_({mine.as<float>().data() + t * cols, size_t(cols)});
    });
    f_->multiply(mine, y, batch);
  }
  int64_t rows() const override { return f_->rows(); }
  int64_t bytes() const override { return f_->bytes(); }
  DType arithmetic(int64_t tokens) const override { return f_->arithmetic(tokens); }

 private:
  std::unique_ptr<Linear> f_;
  EachRow change_;
  ThreadPool& pool_;
};

/// All layers of a group, with the same change of what they read.
std::map<Param, std::shared_ptr<const Linear>> changed_layers(const FloatBlock& b, const ScaleGroup& g,
                                                              const EachRow& of_weights, const EachRow& of_inputs) {
  std::map<Param, std::shared_ptr<const Linear>> linears;
  for (Param p : g.consumers)
    linears[p] =
        std::make_shared<ChangedInput>(linear_of(b, p, each_row(rows_of(b.w, p), of_weights)), of_inputs, b.host.pool);
  return linears;
}

// Ones where no norm comes before: SmoothQuant leaves what v and up feed as it is.
std::vector<float> smoothing(const FloatBlock& b, const ScaleGroup& g) {
  const std::vector<float>& x = b.site(g).max_abs;
  std::vector<float> w(x.size()), s(x.size(), 1.f);
  if (!g.producer || !is_norm(g.producer->role)) return s;
  for (Param p : g.consumers) {
    const Rows rows = rows_of(b.w, p);
    std::vector<float> row(w.size());
    for (int64_t r = 0; r < rows.rows; ++r) {
      rows.read(r, 1, row.data());
      for (size_t c = 0; c < row.size(); ++c) w[c] = std::max(w[c], std::abs(row[c]));
    }
  }
  for (size_t c = 0; c < s.size(); ++c) s[c] = std::max(std::sqrt(x[c] / std::max(w[c], 1e-5f)), 1e-5f);
  return s;
}

}  // namespace

std::unique_ptr<Change> nf4(int group_size) {
  return by_matrix([=](const FloatBlock& b, const ScaleGroup&, Param p) {
    const Rows w = rows_of(b.w, p);
    const auto g = size_t(QuantSpec{.group_size = group_size}.of_width(w.cols).group_size);
    return each_row(w, [g](Row row) {
      for (size_t c = 0; c < row.size(); c += g) to_normal_float(row.subspan(c, g));
    });
  });
}

std::unique_ptr<Change> smoothquant() {
  return by_group([](const FloatBlock& b, const ScaleGroup& g) {
    const std::vector<float> s = smoothing(b, g);
    const auto of_weights = [s](Row row) {
      for (size_t c = 0; c < row.size(); ++c) row[c] *= s[c];
      to_integers(row, 8, 1);
    };
    const auto of_inputs = [s](Row row) {
      for (size_t c = 0; c < row.size(); ++c) row[c] /= s[c];
      to_integers(row, 8, 1);
    };
    return changed_layers(b, g, of_weights, of_inputs);
  });
}

std::unique_ptr<Change> w4a4(bool rotated) {
  return by_group([=](const FloatBlock& b, const ScaleGroup& g) {
    const auto h = rotated ? std::make_shared<Hadamard>(b.site(g).gram.channels()) : nullptr;
    const auto of_weights = [h](Row row) {
      if (h) h->rotate(row.data());
      to_integers_clipped(row, 4);
    };
    const auto of_inputs = [h](Row row) {
      if (h) h->rotate(row.data());
      to_integers(row, 4, 0.9f);
    };
    return changed_layers(b, g, of_weights, of_inputs);
  });
}

}  // namespace awq
