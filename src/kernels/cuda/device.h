#pragma once
// What the backend asks of a GPU: memory, copies, and the kernels. runtime.cu has the GPU's; no_cuda.cc says why there
// is none in a program that was built without CUDA; tests/cuda has the executor's.
#include <memory>
#include <string>

#include "kernels/cuda/contract.h"

namespace awq::cuda {

/// Work that was recorded.
class Recording {
 public:
  virtual ~Recording() = default;
  virtual void replay() = 0;  // waits for nothing
};

/// All work goes on one stream, in order: memory that is given back may be used again at once. Errors throw awq::Error.
class Device {
 public:
  virtual ~Device() = default;
  virtual const Kernels& kernels() const = 0;
  virtual void* stream() = 0;
  virtual int multiprocessors() const = 0;
  virtual bool multiplies_by_groups() const = 0;  // of four warps, and the program has kernels that do: Act::grouped
  virtual std::string name() const = 0;           // "NVIDIA H200, sm_90"
  virtual void* allocate(size_t bytes) = 0;       // null where there is not so much memory
  virtual void release(void* p) noexcept = 0;
  virtual int64_t free_bytes() = 0;
  /// `from` may be reused when it returns.
  virtual void upload(void* to, const void* from, size_t bytes) = 0;
  virtual void download(void* to, const void* from, size_t bytes) = 0;  // waits
  virtual void copy(void* to, const void* from, size_t bytes) = 0;
  virtual void zero(void* to, size_t bytes) = 0;
  virtual void wait() = 0;
  /// Until end_recording kernels, copies on the device and zeros are not done but recorded; uploads, downloads and
  /// waits throw Error. With `keep` false what was recorded is dropped, and null returned.
  virtual void begin_recording() = 0;
  virtual std::unique_ptr<Recording> end_recording(bool keep) = 0;
};

/// The first GPU. Throws Error, saying why, where there is none that can be used.
std::unique_ptr<Device> open_device();

/// What there is, for `awq doctor`.
struct Description {
  bool built = false;  // with CUDA
  bool usable = false;
  std::string device{};  // name
  std::string architecture{}, driver{}, targets{};
  int64_t memory = 0, free = 0;  // bytes
  std::string why_not{};
};
Description describe_device();

[[noreturn]] void throw_cuda_error(const char* what, int code, const char* text);

}  // namespace awq::cuda
