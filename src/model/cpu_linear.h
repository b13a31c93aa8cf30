#pragma once
#include "base/parallel.h"
#include "kernels/kernels.h"
#include "model/backend.h"

namespace awq {

/// What the CPU's layers compute with.
struct CpuContext {
  ThreadPool& pool;
  const kernels::KernelSet& kernels;
  Activations activations = Activations::int16;
};

/// Matrices packed in the panels of kernels.h: f32, f16 or bf16 as given, or 4- or 8-bit codes.
std::unique_ptr<Linear> cpu_linear(const Weight& w, const Tensor* bias, const CpuContext& cpu);
/// y[i] = f[i](x), of layers that cpu_linear made.
void cpu_linears(std::span<const Linear* const> f, const Tensor& x, std::span<Tensor> y);

/// The stream of kernels::PackedInt for a matrix of 4- or 8-bit codes; groups wider than kMaxActGroup are split, their
/// scale and zero repeated. Scales stay 16-bit where the matrix has float16 ones.
struct PackedMatrix {
  Tensor stream;  // u8
  int32_t rows = 0, cols = 0, group = 0, bits = 4;
  bool half_scales = true;
  kernels::PackedInt view() const { return {stream.as<uint8_t>().data(), rows, cols, group, bits, half_scales}; }
};
PackedMatrix pack_int(const QMatrix& q, ThreadPool& pool);

}  // namespace awq
