#pragma once
#include <memory>

#include "kernels/cuda/device.h"

namespace awq::cuda {
namespace executor {
void set_seed(uint64_t seed);  // see executor.h
}
/// A device on the executor. Its memory can be read and written while it copies and runs kernels and at no other time,
/// so that host code which takes a device's tensor for its own ends the test. `bytes`: all that it has.
std::unique_ptr<Device> executor_device(size_t bytes = size_t(256) << 20, int multiprocessors = 3);
}  // namespace awq::cuda
