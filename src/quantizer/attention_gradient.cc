// With P the softmax of S and Y = P V: dV = P^T dY, dP = dY V^T, dS = P (dP - row sums of P dP), dQ = dS K, dK = dS^T
// Q. Queries come 64 at a time; scores of all at once would be the square of a sequence.
#include "quantizer/attention_gradient.h"

#include <algorithm>
#include <cmath>

namespace awq {
namespace {

constexpr int64_t kQueries = 64;

int64_t padded(int64_t n) { return (n + 15) / 16 * 16; }

/// Rows of floats with room for the last panel of a product.
class Matrix {
 public:
  Matrix(int64_t rows, int64_t cols) : rows_(rows), stride_(padded(cols)), values_(size_t(rows * stride_)) {}
  float* row(int64_t r) { return values_.data() + r * stride_; }
  const float* row(int64_t r) const { return values_.data() + r * stride_; }
  int64_t stride() const { return stride_; }

 private:
  int64_t rows_, stride_;
  std::vector<float> values_;
};

/// One head's columns of `rows` rows of x.
struct Head {
  const Tensor& x;
  int64_t first_row, first_col, cols;
  const float* row(int64_t r) const { return x.as<float>().data() + (first_row + r) * x.shape()[1] + first_col; }
};

Matrix copied(const Head& h, int64_t rows) {
  Matrix m(rows, h.cols);
  for (int64_t r = 0; r < rows; ++r) std::copy_n(h.row(r), h.cols, m.row(r));
  return m;
}

Matrix turned(const Head& h, int64_t rows) {
  Matrix m(h.cols, rows);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < h.cols; ++c) m.row(c)[r] = h.row(r)[c];
  return m;
}

/// One kv head of one sequence, with all query heads that read it.
class KvHead {
 public:
  KvHead(const Host& host, const AttentionInputs& in, const Tensor& y, int64_t begin, int64_t length, int kv,
         AttentionGradients& out)
      : kernels_(host.kernels),
        in_(in),
        y_(y),
        out_(out),
        begin_(begin),
        length_(length),
        kv_(kv),
        d_(in.spec.head_dim),
        dv_(in.spec.v_dim()),
        slopes_(in.spec.alibi_slopes()),
        keys_(copied({in.k, begin, kv * d_, d_}, length)),
        turned_keys_(turned({in.k, begin, kv * d_, d_}, length)),
        turned_values_(turned({in.v, begin, kv * dv_, dv_}, length)),
        of_keys_(length, d_),
        of_values_(length, dv_),
        shares_(kQueries, length),
        slope_(kQueries, length),
        turned_(length, kQueries),
        steep_(size_t(length)) {}

  void run() {
    const int group = in_.spec.heads / in_.spec.kv_heads;
    for (int h = kv_ * group; h < (kv_ + 1) * group; ++h)
      for (int64_t q = 0; q < length_; q += kQueries) queries(h, q, std::min(kQueries, length_ - q));
    for (int64_t r = 0; r < length_; ++r) {
      std::copy_n(of_keys_.row(r), d_, at(out_.k, r, kv_ * d_));
      std::copy_n(of_values_.row(r), dv_, at(out_.v, r, kv_ * dv_));
    }
  }

 private:
  float* at(Tensor& t, int64_t row, int64_t col) const {
    return t.as<float>().data() + (begin_ + row) * t.shape()[1] + col;
  }

  /// c [m][n] (+)= a [m][k] b [k][n]
  void product(const float* a, int64_t a_row, const Matrix& b, float* c, int64_t c_row, int64_t m, int64_t n, int64_t k,
               bool more = false) const {
    kernels_.gemm_f32({.a = a,
                       .a_row = a_row,
                       .b = b.row(0),
                       .b_panel = 16,
                       .b_k = b.stride(),
                       .c = c,
                       .c_row = c_row,
                       .m = int32_t(m),
                       .n = int32_t(n),
                       .k = int32_t(k),
                       .accumulate = more});
  }

  /// Of queries [first, first + n), which see keys [0, first + n).
  void queries(int head, int64_t first, int64_t n) {
    const int64_t seen = first + n;
    const Head q{in_.q, begin_ + first, head * d_, d_}, y{y_, begin_ + first, head * dv_, dv_};
    product(q.row(0), in_.q.shape()[1], turned_keys_, shares_.row(0), shares_.stride(), n, seen, d_);
    product(y.row(0), y_.shape()[1], turned_values_, slope_.row(0), slope_.stride(), n, seen, dv_);
    for (int64_t r = 0; r < n; ++r) row(head, first + r, seen, shares_.row(r), slope_.row(r));
    turn(shares_, n, seen);
    product(turned_.row(0), turned_.stride(), copied(y, n), of_values_.row(0), of_values_.stride(), seen, dv_, n, true);
    turn(slope_, n, seen);
    product(turned_.row(0), turned_.stride(), copied(q, n), of_keys_.row(0), of_keys_.stride(), seen, d_, n, true);
    product(slope_.row(0), slope_.stride(), keys_, at(out_.q, first, head * d_), out_.q.shape()[1], n, d_, seen);
  }

  void turn(const Matrix& m, int64_t rows, int64_t cols) {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c) turned_.row(c)[r] = m.row(r)[c];
  }

  /// p: products of a query with keys become its shares; g: gradients by the shares become those by the products.
  void row(int head, int64_t query, int64_t seen, float* p, float* g) {
    const AttentionSpec& a = in_.spec;
    const int64_t from = a.window ? std::max<int64_t>(0, query + 1 - *a.window) : 0;
    float most = -INFINITY;
    for (int64_t k = from; k <= query; ++k) most = std::max(most, p[k] = score(head, query, k, p[k]));
    double sum = 0, mean = 0;
    for (int64_t k = from; k <= query; ++k) {
      steep_[size_t(k)] = slope(p[k]);
      p[k] = std::exp(p[k] - most);
      sum += double(p[k]);
      mean += double(p[k]) * double(g[k]);
    }
    const auto part = float(1 / sum), middle = float(mean / sum);
    for (int64_t k = 0; k < seen; ++k) {
      const bool sees = k >= from && k <= query;
      p[k] = sees ? p[k] * part : 0;
      g[k] = sees ? p[k] * (g[k] - middle) * steep_[size_t(k)] : 0;
    }
  }
  float score(int head, int64_t query, int64_t key, float product) const {
    const AttentionSpec& a = in_.spec;
    const float s = a.score_scale() * product;
    const float bounded = a.soft_cap != 0 ? a.soft_cap * std::tanh(s / a.soft_cap) : s;
    return slopes_.empty() ? bounded : bounded + slopes_[size_t(head)] * float(key - query);
  }
  /// Of the score by the product; a soft cap and ALiBi do not meet.
  float slope(float score) const {
    const AttentionSpec& a = in_.spec;
    const float part = a.soft_cap != 0 ? score / a.soft_cap : 0;
    return a.score_scale() * (1 - part * part);
  }

  const kernels::KernelSet& kernels_;
  const AttentionInputs& in_;
  const Tensor& y_;
  AttentionGradients& out_;
  int64_t begin_, length_;
  int kv_;
  int64_t d_, dv_;
  std::vector<float> slopes_;
  Matrix keys_, turned_keys_, turned_values_, of_keys_, of_values_, shares_, slope_, turned_;
  std::vector<float> steep_;  // slope() of a query's scores
};

}  // namespace

AttentionGradients attention_gradients(const Host& host, const AttentionInputs& in, const Tensor& y) {
  AttentionGradients out{Tensor::empty(in.q.shape(), DType::f32), Tensor::empty(in.k.shape(), DType::f32),
                         Tensor::empty(in.v.shape(), DType::f32)};
  std::vector<int64_t> begins;
  for (int64_t at = 0; int n : in.lengths) begins.push_back(at), at += n;
  host.pool.each(int64_t(begins.size()) * in.spec.kv_heads, [&](int64_t i) {
    const auto s = size_t(i / in.spec.kv_heads);
    KvHead(host, in, y, begins[s], in.lengths[s], int(i % in.spec.kv_heads), out).run();
  });
  return out;
}

}  // namespace awq
