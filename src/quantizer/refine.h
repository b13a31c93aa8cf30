#pragma once
#include "quantizer/form.h"

namespace awq {

/// How often and how far codes and scales are changed.
struct Refinement {
  int rounds = 3;        // of codes and then scales; codes come once more at the end
  float damping = 0.5f;  // of C, as a share of the mean of its diagonal: docs/numerics.md has what others cost
};

/// Changes codes and scales of `q`, which holds `w` rounded, by coordinate descent: each step takes the code, or the
/// scale of a group as its type holds it, with the least sum over rows of e (C + d) e^T while everything else stays, so
/// the sum never grows, but for rounding. e = (rounded - w) / divisors as in QuadraticForm::loss, d the damping. Zero
/// points stay. Rows are independent, so threads do not matter. On tiles of bfloat16, where `form` has them, products
/// are of errors that are rounded to 2^-9 of each.
void refine(const QuadraticForm& form, const Rows& w, std::span<const float> divisors, const Refinement& steps,
            QMatrix& q);
/// What refine() takes for a matrix of that width beside some rows a thread, as QuadraticForm::loss does.
int64_t refine_bytes(int64_t cols);
/// Of one call, for a matrix of that shape: a product is one, its addition another.
double refine_operations(const Rows& w, const Refinement& steps);

}  // namespace awq
