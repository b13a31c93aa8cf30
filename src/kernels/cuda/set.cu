// The kernels compiled for GPUs, and how they are started there.
#include <cuda_runtime.h>

#include "kernels/cuda/device.h"

namespace awq::cuda {
namespace {

/// Whether kernels may begin before the one ahead of them has ended: see after_earlier.
bool overlap() {
  static const bool yes = [] {
    int device = 0, major = 0;
    return cudaGetDevice(&device) == cudaSuccess &&
           cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess && major >= 9;
  }();
  return yes;
}

template <class Args>
void start(void* on, int blocks, int threads, int shared, void (*kernel)(Args), const Args& args) {
  constexpr int kWithoutAsking = 48 << 10;
  cudaError_t e = cudaSuccess;
  if (shared > kWithoutAsking) e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
  if (e == cudaSuccess) {
    cudaLaunchAttribute early{};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t c{};
    c.gridDim = unsigned(blocks);
    c.blockDim = unsigned(threads);
    c.dynamicSmemBytes = size_t(shared);
    c.stream = static_cast<cudaStream_t>(on);
    c.attrs = &early;
    c.numAttrs = overlap() ? 1 : 0;
    e = cudaLaunchKernelEx(&c, kernel, args);
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
