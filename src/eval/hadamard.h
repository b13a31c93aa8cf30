#pragma once
#include <cstdint>
#include <vector>

namespace awq {

/// x H D / sqrt(n): H a Hadamard matrix, rows and columns of +-1 that are orthogonal, D random signs of a fixed seed.
/// An orthogonal matrix that spreads what one channel has over all. H is the Kronecker product of Sylvester's matrix of
/// a power of two and, where n is no power of two, one of Paley's: R. E. A. C. Paley, "On orthogonal matrices", J.
/// Math. Phys. 12 (1933).
class Hadamard {
 public:
  /// Throws Error where neither construction has that size.
  explicit Hadamard(int64_t n);
  void rotate(float* row) const;  // [n]

 private:
  void multiply_paley(float* row) const;

  int64_t n_, paley_ = 1;      // order of the second factor
  std::vector<float> factor_;  // [paley][paley]
  std::vector<float> signs_;   // [n], divided by sqrt(n)
};

}  // namespace awq
