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
  Tiles tiles = Tiles::accurate;
};

/// Matrices packed in the panels of kernels.h: f32, f16 or bf16 as given, or 4- or 8-bit codes.
std::unique_ptr<Linear> cpu_linear(const Pieces& w, const Tensor* bias, const CpuContext& cpu);
/// Backend::apply of layers that cpu_linear made.
void cpu_linears(std::span<const Linear* const> f, const Tensor& x, std::span<Tensor> y, int64_t batch);

}  // namespace awq
