// awq::doctor: what models can run on here.
#include "awq/awq.h"
#include "base/cpu.h"
#include "kernels/cuda/device.h"
#include "kernels/registry.h"

namespace awq {
namespace {

GpuInfo gpu_info() {
  const cuda::Description d = cuda::describe_device();
  return {.built = d.built,
          .usable = d.usable,
          .name = d.device,
          .architecture = d.architecture,
          .driver = d.driver,
          .targets = d.targets,
          .why_not = d.why_not,
          .memory = d.memory,
          .free = d.free};
}

}  // namespace

DoctorReport doctor() {
  DoctorReport r{.cpu = cpu_name(), .threads = max_threads(), .kernels = kernels::select().name};
  for (const kernels::KernelSet* set : kernels::compiled()) r.sets.push_back({set->name, kernels::supported(*set)});
  r.gpu = gpu_info();
  return r;
}

}  // namespace awq
