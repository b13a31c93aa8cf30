#pragma once
#include "cuda/executor.h"

namespace awq::cuda {
/// What set.cu is for the GPU.
const Kernels& executor_kernels();
}  // namespace awq::cuda
