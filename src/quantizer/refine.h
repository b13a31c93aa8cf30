#pragma once
#include "quantizer/gram.h"
#include "quantizer/rows.h"

namespace awq {

/// How often and how far codes and scales are changed.
struct Refinement {
  int rounds = 3;        // of codes and then scales; codes come once more at the end
  float damping = 0.5f;  // of C, as a share of the mean of its diagonal: docs/numerics.md has what others cost
};

/// Changes codes and scales of `q`, which holds `w` rounded, by coordinate descent: each step takes the code, or the
/// scale of a group as its type holds it, with the least sum over rows of e (C + d) e^T while everything else stays, so
/// the sum never grows. e = (rounded - w) / divisors as in QuadraticForm::loss, d the damping. Zero points stay. Rows
/// are independent, so threads do not matter.
void refine(const Host& host, const Rows& w, const Gram& gram, std::span<const float> divisors, const Refinement& steps,
            QMatrix& q);
/// What refine() takes for a matrix of that width.
int64_t refine_bytes(int64_t cols, int threads);
/// Of one call, for a matrix of that shape: a product is one, its addition another.
double refine_operations(const Rows& w, const Refinement& steps);

}  // namespace awq
