#pragma once
#include "quantizer/gram.h"
#include "quantizer/rows.h"

namespace awq {

/// What GPTQ needs of a layer's inputs: with C' = C / (divisors divisors^T) plus `damping` times the mean of its
/// diagonal, in the order of its diagonal, largest first, the upper triangular M with C' = M M^T. Fixing weights in
/// that order, with r the errors so far, weight k's loss is least at w_k + sum over i < k of r_i M_ik / M_kk: what
/// GPTQ's updates by the rows of the inverse's factor come to, without an inverse. Frantar et al., arXiv 2210.17323.
class Compensation {
 public:
  Compensation(const Host& host, const Gram& gram, std::span<const float> divisors, float damping);
  /// Gives `q`, which holds `w` rounded, new codes on the grids that it has: each column is rounded where the errors
  /// of those before it are made up for. Threads do not matter.
  void round(const Host& host, const Rows& w, QMatrix& q) const;
  static int64_t bytes_for(int64_t channels) { return Gram::bytes_for(channels); }
  /// Of making one: a product is one, its addition another.
  static double operations(int64_t channels) { return double(channels) * double(channels) * double(channels) / 3; }

 private:
  std::vector<int64_t> order_;  // column that comes k-th
  Gram factor_;
};

/// C = M M^T with M upper triangular, in place of C's triangle: from the last column to the first, 64 at a time. Throws
/// Error if C is not positive.
void factor_upper(const Host& host, Gram& c);

}  // namespace awq
