#pragma once
#include <mutex>

#include "base/parallel.h"
#include "model/backend.h"
#include "model/cuda_memory.h"

namespace awq {

/// What the layers of one GPU share: its memory, what they round activations to, and room for products.
struct CudaContext {
  std::shared_ptr<CudaMemory> memory;
  ThreadPool& pool;  // that reads pieces
  cuda::Half half = cuda::Half::f16;
  bool alone = false;    // a token's result depends on no other: products of sixteen tokens at a time
  Tensor counters = {};  // zeros, of so many tiles as the largest product has
  Tensor slice = {}, parts = {};
  /// Room for parts of tiles: all products have the same, one after the other.
  float* room_for_parts(int64_t floats);
  /// Room for so many; kernels leave them as they find them.
  int32_t* zero_counters(int64_t tiles);
  const cuda::Kernels& kernels() const { return memory->device().kernels(); }
};

/// Matrices in the layout of cuda::Matrix: codes of up to 8 bits in groups of a multiple of 32 columns, or whole rows;
/// codes in other groups, and 16-bit floats, as 16 bits; f32 as it is.
std::unique_ptr<Linear> cuda_linear(const Pieces& w, const Tensor* bias, CudaContext& cuda);
int64_t cuda_linear_bytes(const Pieces& w);  // read for one token
/// All that such a layer keeps of the GPU's memory, and what one like it needs to decode a slice of its rows.
int64_t cuda_linear_memory(const Pieces& w, bool bias);
int64_t cuda_slice_bytes(const Pieces& w);
/// Backend::activated_product of such a layer; false where it reads floats, which it does not.
bool cuda_activated(cuda::Map map, const Tensor& gate, const Tensor* up, const Linear& down, Tensor& y, int64_t batch);
/// Backend::apply of layers that cuda_linear made.
void cuda_linears(std::span<const Linear* const> f, const Tensor& x, std::span<Tensor> y, int64_t batch);

}  // namespace awq
