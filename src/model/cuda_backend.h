#pragma once
#include "base/parallel.h"
#include "kernels/cuda/device.h"
#include "model/backend.h"
#include "model/cuda_memory.h"

namespace awq {

/// A backend whose tensors are a device's: `host` reads them.
class GpuBackend : public Backend {
 public:
  virtual CudaMemory& memory() = 0;
  /// Of a layer: all that it keeps, and what products with it need beside activations.
  virtual int64_t linear_memory(const Pieces& w, bool bias) const = 0;
  virtual int64_t linear_room(const Pieces& w) const = 0;
};

/// A GPU, or whatever `device` is. `activations` empty or "f16": products' activations are rounded to f16, with a power
/// of two for each token; "bf16": to bf16. Throws Error for others. Tiles::never: what a token becomes does not depend
/// on how many others are computed with it.
std::unique_ptr<GpuBackend> cuda_backend(ThreadPool& pool, std::unique_ptr<cuda::Device> device,
                                         std::string_view activations = "", Tiles tiles = Tiles::accurate);

/// Such a backend for a model's last blocks and its head, and the CPU's for the blocks before them. `layers`: how many
/// blocks the GPU has; 0: as many as fit its memory, with caches of type `kv` for kPlannedPositions tokens.
std::unique_ptr<Backend> split_backend(std::unique_ptr<GpuBackend> gpu, std::unique_ptr<Backend> cpu, int layers,
                                       DType kv);
constexpr int kPlannedPositions = 4096;  // or as many as the model was made for
constexpr int kPlannedTokens = 512;      // of a prompt that are computed at once

}  // namespace awq
