#pragma once
#include <memory>

#include "kernels/cuda/device.h"

namespace awq::cuda {
namespace executor {
void set_seed(uint64_t seed);  // see executor.h

/// What executor devices were asked for; tests set it back. On a GPU it stays 0.
struct Counts {
  int started = 0;   // kernels, copies on the device and zeros, replayed ones not counted
  int recorded = 0;  // of them in the last recording
  int replays = 0, uploads = 0;
  int64_t downloaded = 0;  // bytes
};
extern Counts counts;
}  // namespace executor
/// A device on the executor. Its memory can be read and written while it copies and runs kernels and at no other time,
/// so that host code which takes a device's tensor for its own ends the test. `bytes`: all that it has; `groups`: it
/// multiplies by groups of four warps, as sm_90a does.
std::unique_ptr<Device> executor_device(size_t bytes = size_t(256) << 20, int multiprocessors = 3, bool groups = true);
}  // namespace awq::cuda
