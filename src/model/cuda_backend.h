#pragma once
#include "base/parallel.h"
#include "kernels/cuda/device.h"
#include "model/backend.h"

namespace awq {

/// A GPU, or whatever `device` is. `activations` empty or "f16": products' activations are rounded to f16, with a power
/// of two for each token; "bf16": to bf16. Throws Error for others. Tiles::never: what a token becomes does not depend
/// on how many others are computed with it. Tensors that `empty` gives are the device's: `host` reads them.
std::unique_ptr<Backend> cuda_backend(ThreadPool& pool, std::unique_ptr<cuda::Device> device,
                                      std::string_view activations = "", Tiles tiles = Tiles::accurate);

}  // namespace awq
