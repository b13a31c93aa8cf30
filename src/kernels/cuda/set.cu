// The kernels compiled for GPUs, and how they are started there.
#include <cuda_runtime.h>

#include "kernels/cuda/device.h"

namespace awq::cuda {
namespace {

template <class Args>
void start(void* on, int blocks, int threads, int shared, void (*kernel)(Args), const Args& args) {
  constexpr int kWithoutAsking = 48 << 10;
  cudaError_t e = cudaSuccess;
  if (shared > kWithoutAsking) e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
  if (e == cudaSuccess) {
    kernel<<<unsigned(blocks), unsigned(threads), size_t(shared), static_cast<cudaStream_t>(on)>>>(args);
    e = cudaGetLastError();
  }
  if (e != cudaSuccess) throw_cuda_error("start of a kernel", int(e), cudaGetErrorString(e));
}

}  // namespace
}  // namespace awq::cuda

#include "kernels/cuda/start_rest.h"

namespace awq::cuda {
extern const Kernels device_kernels;
const Kernels device_kernels = kTable;

/// Whether the program has code for the GPU that is chosen.
bool kernels_load();
bool kernels_load() {
  cudaFuncAttributes a;
  const bool yes = cudaFuncGetAttributes(&a, map_elements) == cudaSuccess;
  (void)cudaGetLastError();
  return yes;
}
}  // namespace awq::cuda
