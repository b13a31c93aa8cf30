#pragma once
#include <optional>

#include "base/parallel.h"
#include "kernels/kernels.h"
#include "tensor/tensor.h"

namespace awq {

/// Threads and kernels for the quantizer's own arithmetic.
struct Host {
  ThreadPool& pool;
  const kernels::KernelSet& kernels;
};

/// Whether products of bfloat16 are several times as fast as those of f32.
inline bool has_tiles(const kernels::KernelSet& k) { return k.tiles_bf16 != nullptr; }

/// What a float block's matrices run as where statistics are taken; none: as they are stored.
inline std::optional<DType> running_type(const kernels::KernelSet& k) {
  return has_tiles(k) ? std::optional(DType::bf16) : std::nullopt;
}

}  // namespace awq
