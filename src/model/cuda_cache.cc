#include "model/cuda_cache.h"

#include <algorithm>

namespace awq {
namespace {

int64_t round_up_to(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
int64_t cuda_pages(int64_t positions) { return (positions + cuda::kKvPage - 1) / cuda::kKvPage; }

cuda::KvType cuda_kv_type(DType t) {
  if (t == DType::f16) return cuda::KvType::f16;
  if (t == DType::bf16) return cuda::KvType::bf16;
  if (t == DType::i8) return cuda::KvType::i8;
  if (t == DType::f8_e4m3) return cuda::KvType::f8;
  fail("kv cache", "{} is no type of a KV cache on a GPU; give --kv f16, bf16, int8 or fp8", name_of(t));
}

cuda::KvShape shape_of(const AttentionSpec& a, DType type, int64_t offset) {
  cuda::KvShape s{};
  s.type = cuda_kv_type(type);
  s.heads = a.kv_heads;
  s.head_dim = a.head_dim;
  s.value_dim = a.v_dim();
  s.dim = int32_t(round_up_to(a.head_dim, 32));
  s.padded_value = int32_t(round_up_to(a.v_dim(), 8));
  if (s.padded_value > cuda::kMaxValueDim)
    fail("kv cache", "heads of {} values cannot be run on a GPU; up to {} can. Run it with --device cpu", a.v_dim(),
         int(cuda::kMaxValueDim));
  s.head_bytes = cuda::kKvPage * ((s.dim + s.padded_value) * int64_t(size_of(type)) + kv_scale_bytes(type));
  s.block_offset = offset;
  return s;
}

}  // namespace

CudaKvCache::CudaKvCache(std::shared_ptr<CudaMemory> memory, std::span<const BlockSpec> blocks, DType dtype)
    : memory_(std::move(memory)), deltas_(blocks) {
  for (const BlockSpec& b : blocks) {
    shapes_.push_back(shape_of(b.attention, dtype, page_bytes_));
    if (!b.borrows_keys()) page_bytes_ += shapes_.back().heads * shapes_.back().head_bytes;
  }
}

std::unique_ptr<KvCache> CudaKvCache::clone() const {
  auto copy = std::make_unique<CudaKvCache>(*this);
  for (Tensor& page : copy->pages_) page = memory_->clone(page);
  copy->deltas_.unshare();
  return copy;
}

int64_t CudaKvCache::bytes_for(int64_t positions) const {
  return cuda_pages(positions) * page_bytes_ + deltas_.bytes_for(positions);
}

void CudaKvCache::put_page(int64_t index, std::span<const Tensor> page) {
  pages_.resize(std::max(pages_.size(), size_t(index) + 1));
  pages_[size_t(index)] = page.front();
}

void CudaKvCache::reserve(int64_t positions) {
  while (int64_t(pages_.size()) < cuda_pages(positions)) pages_.push_back(memory_->kept({page_bytes_}, DType::u8));
}

void CudaKvCache::make_room(int64_t positions) {
  const int64_t more = (cuda_pages(positions) - int64_t(pages_.size())) * CudaMemory::kept_bytes(page_bytes_);
  if (more > 0 && more > memory_->room())
    fail(
        "cuda memory",
        "keys and values of {} tokens take another {:.1f} MB of {}, whose budget of {:.1f} MB has {:.1f} MB left: "
        "{:.1f} "
        "MB are in use and the rest is to work in. Ask for a shorter answer, or give --kv int8, fewer --gpu-layers, or "
        "--device cpu",
        positions, double(more) / 1e6, memory_->device().name(), double(memory_->budget()) / 1e6,
        double(std::max<int64_t>(memory_->room(), 0)) / 1e6, double(memory_->bytes_in_use()) / 1e6);
  reserve(positions);
}

}  // namespace awq
