#pragma once
// A random matrix and random activations, their product by kernels, and by double arithmetic with a bound.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "base/numeric.h"
#include "kernels/cuda/contract.h"

namespace awq::cuda {

struct ProductCase {
  int rows = 32, cols = 64, group = 64, bits = 4, tokens = 1;  // group 0: whole rows
  Half half = Half::f16;
  bool half_scales = true, offsets = false, bias = false, order = false, factors = false;
  int multiprocessors = 3, batch = 0;  // 0: the tokens that there are
  bool grouped = false;                // multiplied by groups of four warps
  unsigned seed = 1;
  std::string text() const {
    return fmt::format("{} x {}, groups of {}, {} bits, {} tokens, {}, {} scales, {}, {} multiprocessors, seed {}{}",
                       rows, cols, group, bits, tokens, half == Half::f16 ? "f16" : "bf16", half_scales ? "f16" : "f32",
                       offsets ? "offsets" : "zeros", multiprocessors, seed, grouped ? ", grouped" : "");
  }
};

class Product {
 public:
  explicit Product(const ProductCase& c) : x(size_t(c.tokens * c.cols)), c_(c), rng_(c.seed) {
    groups_ = c.group ? c.cols / c.group : 1;
    w_.resize(size_t(c.rows * c.cols));
    magnitude_ = w_;
    c.bits <= 8 ? make_codes() : make_floats();
    // Eight bits: both kinds of 16 bits hold them, so that only sums are rounded.
    for (float& v : x) v = float(int(rng_() % 255) - 127) / 16;
    for (int r = 0; c.bias && r < c.rows; ++r) bias_.push_back(float(rng_() % 100) / 8);
    for (int i = 0; c.order && i < c.cols; ++i) order_.push_back((i * 5 + 3) % c.cols);  // 5 divides no width here
    for (int i = 0; c.factors && i < c.cols; ++i) factors_.push_back(i % 3 ? 0.5f : 2.f);
  }

  void keep_tokens(int n) {
    c_.tokens = n;
    x.resize(size_t(n * c_.cols));
  }

  void run(const Kernels& k) {
    k.linear(nullptr, {.of = {ready(k)}, .count = 1, .first = {}});
    end();
  }
  /// All but the product; `end` after it.
  LinearArgs ready(const Kernels& k) {
    y.assign(size_t(c_.tokens * c_.rows), NAN);
    const int padded = (c_.cols + kUnitColumns - 1) / kUnitColumns * kUnitColumns;
    values_.assign(size_t(c_.tokens * padded / 8), {});
    act_scales_.assign(size_t(c_.tokens), NAN);
    sums_.assign(size_t(c_.tokens * padded / kSumColumns), NAN);
    copy_.assign(x.size(), NAN);
    float* changed = c_.order || c_.factors ? copy_.data() : nullptr;
    const Act act{
        values_.data(), act_scales_.data(), sums_.data(), changed ? changed : x.data(), c_.tokens, c_.cols, padded,
        c_.half,        c_.grouped};
    k.prepare(nullptr, {x.data(), factors_.empty() ? nullptr : factors_.data(),
                        order_.empty() ? nullptr : order_.data(), act, changed});
    if (!packed_) pack(k), packed_ = true;
    partial_.assign(size_t(partial_floats(c_.tokens, c_.multiprocessors)), NAN);
    counters_.assign(size_t(linear_tiles(c_.rows, c_.tokens)), 0);
    const int slice_rows = 128;
    slice_.assign(size_t(slice_rows * padded / 8), {});
    LinearArgs a;
    a.w = m_;
    a.x = act;
    a.bias = bias_.empty() ? nullptr : bias_.data();
    a.y = y.data();
    a.y_row = c_.rows;
    a.partial = partial_.data();
    a.counters = counters_.data();
    a.batch = c_.batch ? c_.batch : c_.tokens;
    a.multiprocessors = c_.multiprocessors;
    a.slice = slice_.data();
    a.slice_rows = slice_rows;
    return a;
  }
  void end() {
    for (int32_t n : counters_)
      if (n != 0) y.assign(y.size(), NAN);  // they must be as they were
  }

  /// The largest share of the bound that an error takes. Sums of `cols` terms in float, of codes and of what zero
  /// points take away, are off by 2^-24 a term; decoded weights (more than kMaxDirect tokens) and float ones by the
  /// rounding of their 16 bits too, in f16 at least by half of its smallest number, 2^-25 of the row's power of two.
  double check(const Kernels& k) {
    run(k);
    return worst();
  }
  double worst() const {
    const bool rounded = c_.bits == 16 || (c_.bits <= 8 && std::max(c_.batch, c_.tokens) > kMaxDirect);
    const double unit = c_.half == Half::f16 ? 0x1p-11 : 0x1p-8;
    double most = 0;
    for (int t = 0; t < c_.tokens; ++t)
      for (int r = 0; r < c_.rows; ++r) {
        double sum = c_.bias ? double(bias_[size_t(r)]) : 0, all = std::abs(sum), product = 0, x_sum = 0;
        for (int i = 0; i < c_.cols; ++i) {
          const int from = c_.order ? order_[size_t(i)] : i;
          const double v = double(x[size_t(t * c_.cols + from)]) * (c_.factors ? double(factors_[size_t(from)]) : 1);
          const auto at = size_t(r * c_.cols + i);
          sum += w_[at] * v;
          all += magnitude_[at] * std::abs(v);
          product += std::abs(w_[at] * v);
          x_sum += std::abs(v);
        }
        const double tiny = rounded ? double(row_scales_[size_t(r)]) * 0x1p-25 * x_sum : 0;
        const double bound = (c_.cols + 16) * 0x1p-24 * all + (rounded ? unit * product + tiny : 0);
        const double error = std::abs(double(y[size_t(t * c_.rows + r)]) - sum);
        if (!(error <= bound)) return error / bound > 1 ? error / bound : INFINITY;
        if (bound > 0) most = std::max(most, error / bound);
      }
    return most;
  }

  std::vector<float> x, y;

 private:
  struct alignas(16) Aligned {
    uint16_t v[8];
  };

  float in_type(float v) const { return c_.half_scales ? f16_to_f32(f32_to_f16(v)) : v; }

  void make_codes() {
    const int g_cols = c_.cols / groups_;
    for (int i = 0; i < c_.rows * c_.cols; ++i) codes_.push_back(uint8_t(rng_() % (1u << c_.bits)));
    for (int i = 0; i < c_.rows * groups_; ++i) {
      scales_.push_back(in_type(float(1 + rng_() % 1000) * 1.7e-4f));
      zeros_.push_back(uint8_t(rng_() % (1u << c_.bits)));
      offsets_.push_back(in_type(-scales_.back() * (float(zeros_.back()) + 0.3f)));
    }
    for (int r = 0; r < c_.rows; ++r) {
      float top = 0;
      for (int i = 0; i < c_.cols; ++i) {
        const auto g = size_t(r * groups_ + i / g_cols), at = size_t(r * c_.cols + i);
        const double s = scales_[g], o = c_.offsets ? double(offsets_[g]) : -double(zeros_[g]) * s;
        w_[at] = codes_[at] * s + o;
        magnitude_[at] = codes_[at] * s + std::abs(o);
        top = std::max(top, float(magnitude_[at]));
      }
      row_scales_.push_back(std::exp2(std::ceil(std::log2(top)) + 1));
    }
  }
  void make_floats() {
    for (int r = 0; r < c_.rows; ++r) {
      const float size = std::ldexp(1.f, int(rng_() % 40) - 20);
      for (int i = 0; i < c_.cols; ++i) {
        const float v = float(int(rng_() % 65535) - 32767) / 32768 * size;
        floats_.push_back(v);
        w_[size_t(r * c_.cols + i)] = v;
        magnitude_[size_t(r * c_.cols + i)] = std::abs(double(v));
      }
      row_scales_.push_back(2 * size);
    }
  }

  void pack(const Kernels& k) {
    m_ = {};
    m_.rows = c_.rows;
    m_.cols = c_.cols;
    m_.bits = c_.bits;
    m_.group = c_.cols / groups_;
    m_.groups = groups_;
    m_.half = c_.half;
    m_.row_scales = row_scales_.data();
    if (c_.bits == 32) {
      m_.dense = floats_.data();
      return;
    }
    const int units = (c_.cols + kUnitColumns - 1) / kUnitColumns, tiles = (c_.rows + kRowTile - 1) / kRowTile;
    packed_codes_.assign(size_t(tiles * units * 2 * 128 * c_.bits / 16), {});
    m_.codes = reinterpret_cast<uint8_t*>(packed_codes_.data());
    if (c_.bits == 16) {
      pieces([&](int row, int rows, int col, int cols) {
        std::vector<float> part;
        for (int r = 0; r < rows; ++r)
          for (int i = 0; i < cols; ++i) part.push_back(floats_[size_t((row + r) * c_.cols + col + i)]);
        k.pack_floats(nullptr, {m_, part.data(), 0, row, rows, col, cols});
      });
      return;
    }
    pieces([&](int row, int rows, int col, int cols) {
      std::vector<uint8_t> part;
      for (int r = 0; r < rows; ++r)
        for (int i = 0; i < cols; ++i) part.push_back(codes_[size_t((row + r) * c_.cols + col + i)]);
      k.pack_codes(nullptr, {m_, part.data(), row, rows, col, cols});
    });
    pack_grids(tiles);
  }

  /// In four pieces where there is room for it.
  template <class F>
  void pieces(const F& f) {
    const int row = c_.rows > 64 ? 64 : c_.rows, col = c_.cols > 128 ? 128 : c_.cols;
    for (int r : {0, row})
      for (int i : {0, col})
        if (r < c_.rows && i < c_.cols) f(r, r ? c_.rows - row : row, i, i ? c_.cols - col : col);
  }

  void pack_grids(int tiles) {
    const auto n = size_t(tiles * groups_ * kRowTile);
    packed_scales_.assign(n * 4, 0);
    packed_offsets_.assign(n * 4, 0);
    packed_zeros_.assign(n, 0);
    for (int r = 0; r < c_.rows; ++r)
      for (int g = 0; g < groups_; ++g) {
        const auto at = size_t((r / kRowTile * groups_ + g) * kRowTile + r % kRowTile), of = size_t(r * groups_ + g);
        packed_zeros_[at] = zeros_[of];
        put(packed_scales_, at, scales_[of]);
        put(packed_offsets_, at, offsets_[of]);
      }
    m_.half_scales = c_.half_scales;
    m_.scales = packed_scales_.data();
    (c_.offsets ? m_.offsets = packed_offsets_.data() : nullptr);
    if (!c_.offsets) m_.zeros = packed_zeros_.data();
  }
  void put(std::vector<uint8_t>& to, size_t at, float v) const {
    const uint16_t half = f32_to_f16(v);
    if (c_.half_scales)
      std::memcpy(to.data() + 2 * at, &half, 2);
    else
      std::memcpy(to.data() + 4 * at, &v, 4);
  }

  ProductCase c_;
  std::mt19937 rng_;
  int groups_ = 1;
  bool packed_ = false;
  std::vector<double> w_, magnitude_;  // |code scale| + |offset|
  std::vector<uint8_t> codes_, zeros_, packed_zeros_;
  std::vector<float> scales_, offsets_, floats_, row_scales_, bias_, factors_;
  std::vector<int32_t> order_;
  std::vector<Aligned> packed_codes_;
  alignas(16) std::vector<uint8_t> packed_scales_, packed_offsets_;
  Matrix m_;
  // What the last product worked in.
  std::vector<Aligned> values_, slice_;
  std::vector<float> act_scales_, sums_, copy_, partial_;
  std::vector<int32_t> counters_;
};

}  // namespace awq::cuda
