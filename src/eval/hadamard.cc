#include "eval/hadamard.h"

#include <cmath>
#include <random>

#include "base/check.h"

namespace awq {
namespace {

bool is_prime(int64_t n) {
  for (int64_t d = 2; d * d <= n; ++d)
    if (n % d == 0) return false;
  return n > 1;
}

/// 1 where a is a square modulo the prime q, -1 where not, 0 for 0.
int legendre(int64_t a, int64_t q) {
  a = (a % q + q) % q;
  if (a == 0) return 0;
  for (int64_t x = 1; x <= q / 2; ++x)
    if (x * x % q == a) return 1;
  return -1;
}

/// Of order q + 1: a border of ones around legendre(i - j), the left one negative unless `symmetric`; 0 in the corner.
std::vector<int> bordered(int64_t q, bool symmetric) {
  const int64_t n = q + 1;
  std::vector<int> c(size_t(n * n));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j) {
      int& v = c[size_t(i * n + j)];
      if (i && j) v = legendre(i - j, q);
      if (!i && j) v = 1;
      if (i && !j) v = symmetric ? 1 : -1;
    }
  return c;
}

std::vector<float> paley_first(int64_t n) {
  std::vector<int> s = bordered(n - 1, false);
  for (int64_t i = 0; i < n; ++i) s[size_t(i * n + i)] += 1;
  return {s.begin(), s.end()};
}

std::vector<float> paley_second(int64_t n) {
  const int64_t half = n / 2;
  const std::vector<int> c = bordered(half - 1, true);
  constexpr int kOff[2][2] = {{1, 1}, {1, -1}}, kDiagonal[2][2] = {{1, -1}, {-1, -1}};
  std::vector<float> h;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j)
      h.push_back(
          float(i / 2 == j / 2 ? kDiagonal[i % 2][j % 2] : c[size_t(i / 2 * half + j / 2)] * kOff[i % 2][j % 2]));
  return h;
}

/// Empty where no construction has order n.
std::vector<float> paley(int64_t n) {
  if (n % 4 == 0 && is_prime(n - 1)) return paley_first(n);
  if (n % 4 == 0 && (n / 2 - 1) % 4 == 1 && is_prime(n / 2 - 1)) return paley_second(n);
  return {};
}

}  // namespace

Hadamard::Hadamard(int64_t n) : n_(n) {
  int64_t odd = n;
  while (odd > 1 && odd % 2 == 0) odd /= 2;
  for (paley_ = odd; odd > 1 && paley_ <= n && factor_.empty(); paley_ *= 2)
    if (n % paley_ == 0) factor_ = paley(paley_);
  if (odd > 1 && factor_.empty())
    fail("study", "a width of {} channels has no Hadamard matrix of Sylvester's and Paley's; it cannot be rotated", n);
  if (odd > 1) paley_ /= 2;
  std::mt19937 random(1);
  for (int64_t i = 0; i < n; ++i) signs_.push_back((random() & 1 ? 1.f : -1.f) / std::sqrt(float(n)));
}

void Hadamard::rotate(float* row) const {
  for (int64_t step = paley_; step < n_; step *= 2)
    for (int64_t begin = 0; begin < n_; begin += 2 * step)
      for (int64_t i = begin; i < begin + step; ++i) {
        const float a = row[i], b = row[i + step];
        row[i] = a + b;
        row[i + step] = a - b;
      }
  if (paley_ > 1) multiply_paley(row);
  for (int64_t i = 0; i < n_; ++i) row[i] *= signs_[size_t(i)];
}

void Hadamard::multiply_paley(float* row) const {
  std::vector<float> out(static_cast<size_t>(paley_));
  for (int64_t begin = 0; begin < n_; begin += paley_) {
    for (int64_t j = 0; j < paley_; ++j) {
      out[size_t(j)] = 0;
      for (int64_t i = 0; i < paley_; ++i) out[size_t(j)] += row[begin + i] * factor_[size_t(i * paley_ + j)];
    }
    std::copy(out.begin(), out.end(), row + begin);
  }
}

}  // namespace awq
