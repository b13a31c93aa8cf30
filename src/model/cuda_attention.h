#pragma once
#include <list>

#include "model/cuda_cache.h"
#include "model/cuda_linear.h"

namespace awq {

/// Small arrays on the device, by what they hold: all blocks of a forward pass ask for the same ones.
class CudaArrays {
 public:
  static constexpr size_t kEntries = 24;
  explicit CudaArrays(CudaMemory& memory, size_t most = kEntries) : memory_(memory), most_(most) {}
  template <class T>
  const T* at(std::span<const T> values) {
    return reinterpret_cast<const T*>(find({reinterpret_cast<const std::byte*>(values.data()), values.size_bytes()}));
  }
  template <class T>
  const T* at(const std::vector<T>& values) {
    return at(std::span<const T>(values));
  }

 private:
  struct Entry {
    std::vector<std::byte> host;
    Tensor device;
  };
  const std::byte* find(std::span<const std::byte> bytes);
  CudaMemory& memory_;
  size_t most_;
  std::list<Entry> entries_;  // the latest first
};

/// What kernels are told of a batch.
struct CudaBatch {
  CudaBatch(Batch batch, const AttentionSpec& spec);
  std::vector<uint8_t*> pages;
  std::vector<cuda::KvSequence> sequences;
  std::vector<int32_t> sequence_of;
  std::vector<cuda::AttentionTile> tiles;
  std::vector<cuda::AttentionUnit> units;
  int32_t whole = 0;

 private:
  void add(const Sequence& s);
  void add_tiles(const Sequence& s, int32_t index, const AttentionSpec& spec, bool split);
};

/// Where that lies on the device.
struct CudaTables {
  uint8_t* const* pages = nullptr;
  const cuda::KvSequence* sequences = nullptr;
  const int32_t* sequence_of = nullptr;
  const cuda::AttentionTile* tiles = nullptr;
  const cuda::AttentionUnit* units = nullptr;
  int32_t tokens = 0, tile_count = 0, whole_count = 0, unit_count = 0;
};
CudaTables tables_of(CudaArrays& arrays, const CudaBatch& batch);

/// What attention of one block reads, beside tables.
struct CudaHeads {
  const Tensor &q, &k, &v;
  const float *slopes, *sinks;  // on the device, see AttentionArgs; or null
  cuda::KvShape kv;
  const AttentionSpec& spec;
};
/// Keys and values to the cache, and attention; or attention alone, of a cache that has them.
cuda::KvStoreArgs kv_store_of(const CudaTables& tables, const CudaHeads& heads);
void cuda_attention(CudaContext& cuda, const CudaTables& tables, const CudaHeads& heads, bool stored, Tensor& y);
std::vector<float> times_log2e(std::span<const float> v);

}  // namespace awq
