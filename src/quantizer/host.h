#pragma once
#include "base/parallel.h"
#include "kernels/kernels.h"

namespace awq {

/// Threads and kernels for the quantizer's own arithmetic.
struct Host {
  ThreadPool& pool;
  const kernels::KernelSet& kernels;
};

}  // namespace awq
