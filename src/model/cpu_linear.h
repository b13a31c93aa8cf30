#pragma once
#include "base/parallel.h"
#include "kernels/kernels.h"
#include "model/backend.h"

namespace awq {

/// Matrices packed in the panels of kernels.h: f32, f16 or bf16 as given, or 4-bit codes.
std::unique_ptr<Linear> cpu_linear(const Pieces& w, const Tensor* bias, ThreadPool& pool, const kernels::KernelSet& k);

}  // namespace awq
