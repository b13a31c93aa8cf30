#pragma once
#include "base/parallel.h"
#include "kernels/kernels.h"
#include "model/backend.h"

namespace awq {

/// Matrices packed in the panels of kernels.h: f32, f16 or bf16 as given, or 4-bit codes.
std::unique_ptr<Linear> cpu_linear(const Weight& w, const Tensor* bias, ThreadPool& pool, const kernels::KernelSet& k);

/// The stream of kernels::PackedI4 for a matrix of 4-bit codes; groups wider than kMaxActGroup are split, their scale
/// and zero repeated.
struct PackedMatrix {
  Tensor stream;  // u8
  int32_t rows = 0, cols = 0, group = 0;
};
PackedMatrix pack_i4(const QMatrix& q, ThreadPool& pool);

}  // namespace awq
