#pragma once
// Plain loops that every set compiles for itself and the compiler vectorises. Everything has internal linkage. With a
// fixed number of lanes and no contraction of a*b+c, they give the same bits in every set.
#include "kernels/kernels.h"

namespace awq::kernels {
namespace {

enum : int32_t { kLanes = 16 };  // partial sums of a reduction: enough for one vector of any set

inline uint32_t bits_of(float f) { return __builtin_bit_cast(uint32_t, f); }
inline float float_of(uint32_t u) { return __builtin_bit_cast(float, u); }

/// e^x within 2 ulp, subnormal results included; 0 below about -104, infinity above 88.7, NaN for NaN.
/// x = n ln2 + r with |r| <= ln2 / 2; ln2 is split so that n * the first part is exact (n has 8 bits, the constant 9).
/// The polynomial for e^r is Cephes' expf: error below 2^-24 relative. 2^n is applied in two factors that are both
/// normal, so the only rounding of a subnormal result is the last multiplication's.
inline float exp_approx(float x) {
  const float low = -104.f, high = 89.f;
  x = x < low ? low : x;  // written so that NaN stays
  x = x > high ? high : x;
  const float shift = 0x1.8p23f;  // adding it rounds to an integer, which is then in the low bits
  const float shifted = x * 1.44269504f + shift;
  const int32_t n = int32_t(bits_of(shifted) - 0x4b400000u);
  const float nf = shifted - shift;
  const float r = (x - nf * 0.693359375f) - nf * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = (p * r * r + r) + 1.f;
  const int32_t half = n >> 1;
  return p * float_of(uint32_t(half + 127) << 23) * float_of(uint32_t(n - half + 127) << 23);
}

inline float max_of(const float* x, int32_t n) {
  float lanes[kLanes];
  for (float& l : lanes) l = -__builtin_inff();
  int32_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int32_t j = 0; j < kLanes; ++j) lanes[j] = x[i + j] > lanes[j] ? x[i + j] : lanes[j];
  float m = -__builtin_inff();
  for (const float l : lanes) m = l > m ? l : m;
  for (; i < n; ++i) m = x[i] > m ? x[i] : m;
  return m;
}

/// Adds the lanes in a fixed tree.
template <class T>
inline T fold(const T (&lanes)[kLanes]) {
  T s[kLanes];
  for (int32_t i = 0; i < kLanes; ++i) s[i] = lanes[i];
  for (int32_t w = kLanes / 2; w > 0; w /= 2)
    for (int32_t i = 0; i < w; ++i) s[i] += s[i + w];
  return s[0];
}

/// x[i] = e^(x[i] - shift); returns their sum. Each lane adds n / 16 positive terms: relative error below
/// (n / 16 + 5) * 2^-24 at worst.
inline float exp_and_sum(float* x, float shift, int32_t n) {
  float lanes[kLanes] = {};
  int32_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int32_t j = 0; j < kLanes; ++j) lanes[j] += x[i + j] = exp_approx(x[i + j] - shift);
  for (; i < n; ++i) lanes[i % kLanes] += x[i] = exp_approx(x[i] - shift);
  return fold(lanes);
}

/// A row of only -infinity gives NaN, as does one with NaN or +infinity.
inline void softmax(float* x, ptrdiff_t x_row, int32_t rows, int32_t n) {
  for (int32_t r = 0; r < rows; ++r, x += x_row) {
    const float inverse = 1.f / exp_and_sum(x, max_of(x, n), n);
    for (int32_t i = 0; i < n; ++i) x[i] *= inverse;
  }
}

/// Terms are within 2 ulp and positive, so the sum is within 2^-22 relative and the logarithm within 2^-22 absolute,
/// typically far less: errors of terms average out.
inline double log_sum_exp(const float* x, int32_t n) {
  const float m = max_of(x, n);
  double lanes[kLanes] = {};
  int32_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int32_t j = 0; j < kLanes; ++j) lanes[j] += double(exp_approx(x[i + j] - m));
  for (; i < n; ++i) lanes[i % kLanes] += double(exp_approx(x[i] - m));
  return double(m) + __builtin_log(fold(lanes));
}

/// Two loops, so that each is vectorised.
template <class F>
inline void activate(const F& act, const float* g, const float* u, float* y, int64_t n) {
  if (u)
    for (int64_t i = 0; i < n; ++i) y[i] = act(g[i]) * u[i];
  else
    for (int64_t i = 0; i < n; ++i) y[i] = act(g[i]);
}

inline void silu_mul(const float* g, const float* u, float* y, int64_t n) {
  activate([](float x) { return x / (1.f + exp_approx(-x)); }, g, u, y, n);
}

inline void sigmoid_mul(const float* g, const float* u, float* y, int64_t n) {
  activate([](float x) { return 1.f / (1.f + exp_approx(-x)); }, g, u, y, n);
}

/// 0.5 (1 + tanh(z)) = 1 / (1 + e^-2z): no cancellation where tanh is near -1.
inline void gelu_tanh_mul(const float* g, const float* u, float* y, int64_t n) {
  const auto gelu_tanh = [](float x) {
    const float z = 2 * 0.7978845608f * (x + 0.044715f * x * x * x);  // 2 sqrt(2 / pi)
    return x / (1.f + exp_approx(-z));
  };
  activate(gelu_tanh, g, u, y, n);
}

/// x (1 + erf(x / sqrt 2)) / 2. erfc(z) = P(t) e^-z^2 with t = 1 / (1 + 0.3275911 z) is within 1.5e-7 (Abramowitz and
/// Stegun 7.1.26), so this is within 2^-23 |x|, what rounding x once more would do.
inline void gelu_mul(const float* g, const float* u, float* y, int64_t n) {
  const auto gelu = [](float x) {
    const float z = (x < 0 ? -x : x) * 0.70710678f, t = 1.f / (1.f + 0.3275911f * z);
    float p = 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    const float tail = 0.5f * p * t * exp_approx(-z * z);
    return x * (x < 0 ? tail : 1.f - tail);
  };
  activate(gelu, g, u, y, n);
}

inline float relu(float x) { return x < 0 ? 0.f : x; }  // NaN stays
inline void relu_mul(const float* g, const float* u, float* y, int64_t n) { activate(relu, g, u, y, n); }
inline void relu2_mul(const float* g, const float* u, float* y, int64_t n) {
  activate([](float x) { return relu(x) * relu(x); }, g, u, y, n);
}

/// Within 2^-23: a polynomial (Cephes' tanhf) where 1 - 2 / (e^2x + 1) would cancel.
inline float tanh_approx(float x) {
  const float s = x * x;
  float p = -5.70498872745e-3f;
  p = p * s + 2.06390887954e-2f;
  p = p * s - 5.37397155531e-2f;
  p = p * s + 1.33314422036e-1f;
  p = p * s - 3.33332819422e-1f;
  const float large = 1.f - 2.f / (exp_approx(2.f * x) + 1.f);
  return s < 0.390625f ? x + x * s * p : large;
}

inline void add(const float* x, float scale, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += scale * x[i];
}

/// The sum of f(x[i]) in double.
template <class F>
inline double sum_of(const float* x, int32_t n, const F& f) {
  double lanes[kLanes] = {};
  int32_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int32_t j = 0; j < kLanes; ++j) lanes[j] += f(double(x[i + j]));
  for (; i < n; ++i) lanes[i % kLanes] += f(double(x[i]));
  return fold(lanes);
}

/// Squares of floats are exact in double: the sum's error is below dim * 2^-53, nothing beside the last roundings.
inline double sum_of_squares(const float* x, int32_t n) {
  return sum_of(x, n, [](double v) { return v * v; });
}

inline void rms_norm(const float* x, const float* gain, float gain_offset, float eps, int32_t tokens, int32_t dim,
                     float* y) {
  for (int32_t t = 0; t < tokens; ++t, x += dim, y += dim) {
    const auto inverse = float(1 / __builtin_sqrt(sum_of_squares(x, dim) / dim + double(eps)));
    for (int32_t i = 0; i < dim; ++i) y[i] = x[i] * inverse * (gain[i] + gain_offset);
  }
}

inline void layer_norm(const float* x, const float* gain, const float* bias, float gain_offset, float eps,
                       int32_t tokens, int32_t dim, float* y) {
  for (int32_t t = 0; t < tokens; ++t, x += dim, y += dim) {
    const double mean = sum_of(x, dim, [](double v) { return v; }) / dim;
    const double variance = sum_of(x, dim, [mean](double v) { return (v - mean) * (v - mean); }) / dim;
    const auto inverse = float(1 / __builtin_sqrt(variance + double(eps)));
    for (int32_t i = 0; i < dim; ++i) y[i] = float(double(x[i]) - mean) * inverse * (gain[i] + gain_offset) + bias[i];
  }
}

/// Pairs are (i * step, i * step + apart).
inline void rotate(float* x, const float* cosines, const float* sines, int32_t pairs, int32_t step, int32_t apart) {
  for (int32_t i = 0; i < pairs; ++i) {
    float &first = x[i * step], &second = x[i * step + apart];
    const float a = first, b = second;
    first = a * cosines[i] - b * sines[i];
    second = b * cosines[i] + a * sines[i];
  }
}

inline void rope(float* x, const float* cosines, const float* sines, int32_t heads, int32_t head_dim, int32_t dims,
                 bool interleaved) {
  for (int32_t h = 0; h < heads; ++h, x += head_dim)
    if (interleaved)
      rotate(x, cosines, sines, dims / 2, 2, 1);
    else
      rotate(x, cosines, sines, dims / 2, 1, dims / 2);
}

/// Bits of the largest |x|. As integers NaN is above infinity and infinity above all else, so none of them is lost.
inline uint32_t max_magnitude(const float* x, int32_t n) {
  int32_t m = 0;
  for (int32_t i = 0; i < n; ++i) {
    const auto v = int32_t(bits_of(x[i]) & 0x7fffffffu);
    m = v > m ? v : m;
  }
  return uint32_t(m);
}

template <class Code>
constexpr float kTopCode = sizeof(Code) == 1 ? 127.f : 32767.f;

/// codes[i] = round(x[i] * by), rounded by adding 1.5 * 2^23 and kept within +-top; returns their sum.
inline int32_t round_group(const float* x, int32_t n, float by, float top, int32_t* codes) {
  int32_t sum = 0;
  for (int32_t i = 0; i < n; ++i) {
    float q = x[i] * by;
    q = q > top ? top : q;
    q = q < -top ? -top : q;
    codes[i] = int32_t(bits_of(q + 0x1.8p23f) - 0x4b400000u);
    sum += codes[i];
  }
  return sum;
}

inline void narrow(const int32_t* from, int32_t n, int16_t* to) {
  for (int32_t i = 0; i < n; ++i) to[i] = int16_t(from[i]);
}
inline void narrow(const int32_t* from, int32_t n, int8_t* to) {
  for (int32_t i = 0; i < n; i += 4) {  // the middle two of each four change places
    const auto byte = [&](int32_t j) { return uint32_t(from[i + j] & 255); };
    const uint32_t four = byte(0) | byte(2) << 8 | byte(1) << 16 | byte(3) << 24;
    __builtin_memcpy(to + i, &four, sizeof(four));
  }
}

/// One group. A group with infinity or NaN keeps that as its scale over codes of 0: its products are NaN. One whose
/// values are all below 2^-112 is taken for zeros: the factor would be infinite.
template <class Code>
inline int32_t quantize_group(const float* x, int32_t n, Code* codes, float* scale) {
  const uint32_t top = max_magnitude(x, n);
  const float by = kTopCode<Code> / float_of(top);
  int32_t rounded[kMaxActGroup];
  *scale = by == __builtin_inff() ? 0.f : float_of(top) / kTopCode<Code>;
  const bool usable = top < 0x7f800000u && by < __builtin_inff();
  const int32_t sum = usable ? round_group(x, n, by, kTopCode<Code>, rounded) : 0;
  for (int32_t i = 0; !usable && i < n; ++i) rounded[i] = 0;
  narrow(rounded, n, codes);
  return sum;
}

/// Codes row by row; of 8 bits, the middle two of each four columns change places (PackedInt says why).
template <class Code>
inline void quantize_act(const float* x, const ActInt<Code>& to, int32_t begin, int32_t end) {
  const ptrdiff_t groups = to.cols / to.group;
  for (ptrdiff_t g = begin * groups; g < end * groups; ++g)
    to.sums[g] = quantize_group(x + g * to.group, to.group, to.codes + g * to.group, to.scales + g);
}

}  // namespace
}  // namespace awq::kernels
