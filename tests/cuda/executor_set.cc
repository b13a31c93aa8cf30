// The kernels of src/kernels/cuda compiled for the executor.
#include "cuda/executor_set.h"

namespace awq::cuda {
namespace {

template <class Args>
void start(void*, int blocks, int threads, int shared, void (*kernel)(Args), const Args& args) {
  struct Call {
    void (*kernel)(Args);
    const Args& args;
  };
  const Call call{kernel, args};
  executor::run(
      blocks, threads, shared,
      [](const void* c) {
        const auto& of = *static_cast<const Call*>(c);
        of.kernel(of.args);
        executor::require_waited();
      },
      &call);
}

}  // namespace
}  // namespace awq::cuda

#include "kernels/cuda/start_rest.h"

namespace awq::cuda {
const Kernels& executor_kernels() { return kTable; }
}  // namespace awq::cuda
