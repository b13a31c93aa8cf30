// A GPU through the CUDA runtime, which is linked statically and asks for the driver only when it is used: a program
// built with CUDA runs where there is none.
#include <cuda_runtime.h>

#include "awq/error.h"
#include "kernels/cuda/device.h"

namespace awq::cuda {

extern const Kernels device_kernels;  // set.cu
bool kernels_load();

void throw_cuda_error(const char* what, int code, const char* text) {
  throw Error("[cuda] " + std::string(what) + ": error " + std::to_string(code) + ", " + text +
              ". Run it again with --device cpu; if only the GPU fails, report this with what `awq doctor` says");
}

namespace {

void require(const char* what, cudaError_t e) {
  if (e != cudaSuccess) throw_cuda_error(what, int(e), cudaGetErrorString(e));
}

std::string version_text(int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); }

/// A CUDA graph.
class Graph final : public Recording {
 public:
  Graph(cudaGraph_t graph, cudaStream_t stream) : stream_(stream) {
    const cudaError_t e = cudaGraphInstantiate(&ready_, graph, 0);
    cudaGraphDestroy(graph);
    require("making a graph", e);
  }
  ~Graph() override { cudaGraphExecDestroy(ready_); }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  void replay() override { require("starting a graph", cudaGraphLaunch(ready_, stream_)); }

 private:
  cudaGraphExec_t ready_ = nullptr;
  cudaStream_t stream_;
};

class Gpu final : public Device {
 public:
  explicit Gpu(int index) {
    require("choosing the GPU", cudaSetDevice(index));
    require("reading its properties", cudaGetDeviceProperties(&properties_, index));
    require("making a stream", cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  }
  ~Gpu() override { cudaStreamDestroy(stream_); }
  const Kernels& kernels() const override { return device_kernels; }
  void* stream() override { return stream_; }
  int multiprocessors() const override { return properties_.multiProcessorCount; }
  bool multiplies_by_groups() const override {
    return properties_.major == 9 && properties_.minor == 0 &&
           std::string(AWQ_CUDA_TARGETS).find("90a") != std::string::npos;
  }
  std::string name() const override {
    return std::string(properties_.name) + ", sm_" + std::to_string(properties_.major) +
           std::to_string(properties_.minor);
  }
  void* allocate(size_t bytes) override {
    void* p = nullptr;
    const cudaError_t e = cudaMalloc(&p, bytes);
    if (e == cudaSuccess) return p;
    (void)cudaGetLastError();  // else the next call would report it again
    if (e != cudaErrorMemoryAllocation) require("allocation", e);
    return nullptr;
  }
  void release(void* p) noexcept override { (void)cudaFree(p); }
  int64_t free_bytes() override {
    size_t left = 0, all = 0;
    require("asking for free memory", cudaMemGetInfo(&left, &all));
    return int64_t(left);
  }
  // The runtime has taken pageable memory over when this returns: what is on the stream before it is not waited for.
  void upload(void* to, const void* from, size_t bytes) override {
    refuse_recording("a copy to the GPU");
    require("a copy to the GPU", cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_));
  }
  void download(void* to, const void* from, size_t bytes) override {
    refuse_recording("a copy from the GPU");
    require("a copy from the GPU", cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_));
    wait();
  }
  void copy(void* to, const void* from, size_t bytes) override {
    require("a copy on the GPU", cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_));
  }
  void zero(void* to, size_t bytes) override { require("zeroing", cudaMemsetAsync(to, 0, bytes, stream_)); }
  void wait() override {
    refuse_recording("waiting");
    require("a kernel", cudaStreamSynchronize(stream_));
  }
  // Relaxed: another thread may free what it had of this GPU meanwhile.
  void begin_recording() override {
    require("recording", cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed));
    recording_ = true;
  }
  std::unique_ptr<Recording> end_recording(bool keep) override {
    recording_ = false;
    cudaGraph_t graph = nullptr;
    const cudaError_t e = cudaStreamEndCapture(stream_, &graph);
    if (keep) {
      require("recording", e);
      return std::make_unique<Graph>(graph, stream_);
    }
    (void)cudaGetLastError();
    if (graph) cudaGraphDestroy(graph);
    return nullptr;
  }

 private:
  void refuse_recording(const char* what) const {
    if (recording_) throw Error("[cuda] " + std::string(what) + " in a step that is being recorded; report this");
  }
  bool recording_ = false;
  cudaDeviceProp properties_{};
  cudaStream_t stream_ = nullptr;
};

}  // namespace

Description describe_device() {
  Description d;
  d.built = true;
  d.targets = AWQ_CUDA_TARGETS;
  int driver = 0, runtime = 0, count = 0;
  (void)cudaDriverGetVersion(&driver);
  (void)cudaRuntimeGetVersion(&runtime);
  d.driver = driver ? "for CUDA " + version_text(driver) : "none";
  const cudaError_t e = cudaGetDeviceCount(&count);
  (void)cudaGetLastError();
  if (e != cudaSuccess || count == 0) {
    d.why_not = e == cudaSuccess ? "this machine has no GPU that CUDA knows" : cudaGetErrorString(e);
    if (!driver) d.why_not = "this machine has no driver for NVIDIA GPUs";
    if (driver && driver / 1000 < runtime / 1000)
      d.why_not +=
          "; the driver is for CUDA " + version_text(driver) + ", and this program for " + version_text(runtime);
    return d;
  }
  cudaDeviceProp p{};
  if (const cudaError_t asked = cudaGetDeviceProperties(&p, 0); asked != cudaSuccess) {
    d.why_not = cudaGetErrorString(asked);
    return d;
  }
  d.device = p.name;
  d.architecture = "sm_" + std::to_string(p.major) + std::to_string(p.minor);
  if (!kernels_load())
    d.why_not = d.architecture + " is none of what this program has kernels for: " + d.targets +
                ". Build it with -DAWQ_CUDA_ARCHITECTURES for this GPU";
  d.usable = d.why_not.empty();
  if (size_t left = 0, all = 0; d.usable && cudaMemGetInfo(&left, &all) == cudaSuccess)
    d.memory = int64_t(all), d.free = int64_t(left);
  return d;
}

std::unique_ptr<Device> open_device() {
  const Description d = describe_device();
  if (!d.usable)
    throw Error("[device] --device cuda: " + d.why_not +
                ". `awq doctor` says what there is; --device cpu needs no GPU");
  return std::make_unique<Gpu>(0);
}

}  // namespace awq::cuda
