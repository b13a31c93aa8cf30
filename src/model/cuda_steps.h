#pragma once
#include <functional>
#include <optional>

#include "model/backend_parts.h"
#include "model/cuda_attention.h"

namespace awq {

/// A pass over one token of each of so many sequences, recorded: what changes from step to step lies in one piece of
/// memory, at places that stay. The first pass is not recorded: it shows which tables there are.
class CudaStep {
 public:
  using Pass = std::function<Tensor(Tensor& x)>;
  CudaStep(CudaContext& cuda, ThreadPool& pool) : cuda_(cuda), turns_(pool) {}
  CudaStep(const CudaStep&) = delete;
  CudaStep& operator=(const CudaStep&) = delete;

  /// What `pass` makes of x, in a tensor that the next call writes to. `enter(true)` is called before a pass whose
  /// calls are to ask for tables here, and `enter(false)` after it.
  Tensor run(Batch batch, const Tensor& x, const Pass& pass, const std::function<void(bool)>& enter);

  /// In a pass: where this batch's tables are. None in the first.
  std::optional<CudaTables> attention(const AttentionSpec& spec);
  struct Angles {
    const float *cosines, *sines;
  };
  std::optional<Angles> angles(std::span<const float> frequencies);

 private:
  /// Of blocks whose heads are shared alike, with the same window. There is room for so many pages and units.
  struct Attention {
    AttentionSpec spec;
    size_t pages = 0, units = 0;
    size_t pages_at = 0, sequences_at = 0, sequence_of_at = 0, tiles_at = 0, units_at = 0;
    int32_t tiles = 0, tokens = 0;
  };
  struct Turn {
    std::vector<float> frequencies;
    size_t cosines_at = 0, sines_at = 0;
  };

  std::vector<CudaBatch> batches_of(Batch batch) const;
  bool fit(const std::vector<CudaBatch>& batches) const;
  void make_room(const std::vector<CudaBatch>& batches);
  void pack(Batch batch, const std::vector<CudaBatch>& batches);
  template <class T>
  size_t add(std::span<const T> values, size_t room, T rest = {});
  template <class T>
  const T* at(size_t offset) const {
    return reinterpret_cast<const T*>(tables_.data() + offset);
  }
  void record(const Tensor& x, const Pass& pass, const std::function<void(bool)>& enter);

  CudaContext& cuda_;
  RopeTables turns_;
  std::vector<Attention> attention_;
  std::vector<Turn> turned_;
  bool known_ = false;           // which tables there are
  std::vector<std::byte> host_;  // what tables_ is to hold
  Tensor tables_, x_, result_;
  std::vector<Tensor> kept_;  // what the context may replace by larger ones
  CudaMemory::Held held_;     // buffers that the recorded pass works in
  std::unique_ptr<cuda::Recording> recording_;
};

constexpr size_t kMostRecordings = 32;  // each has buffers of its own, and takes some of the driver's memory

/// Of one model: a step for each number of sequences and each kind of pass.
class CudaRecordings final : public Recordings {
 public:
  CudaRecordings(std::shared_ptr<CudaMemory> memory, CudaContext& cuda) : memory_(std::move(memory)), cuda_(cuda) {}
  CudaStep& of(int64_t sequences, int kind);

 private:
  struct Entry {
    int64_t sequences;
    int kind;
    std::unique_ptr<CudaStep> step;
  };
  std::shared_ptr<CudaMemory> memory_;  // outlives what lies in it
  CudaContext& cuda_;
  std::list<Entry> entries_;  // the latest first
};

}  // namespace awq
