// What stands for the GPU in a program that was built without CUDA.
#include "base/check.h"
#include "kernels/cuda/device.h"

namespace awq::cuda {

namespace {
constexpr const char* kWhyNot =
    "this program was built without CUDA. Build it where nvcc is (CUDA 12.8 or later) with `cmake --preset cuda`";
}

Description describe_device() {
  Description d;
  d.why_not = kWhyNot;
  return d;
}

std::unique_ptr<Device> open_device() { fail("device", "--device cuda: {}, or leave --device out", kWhyNot); }

}  // namespace awq::cuda
