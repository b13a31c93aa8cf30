#pragma once
// A GPU's execution model on the host, for tests of the kernels in src/kernels/cuda: what kernels/cuda/lanes.h offers
// them, by the documented meaning of each instruction (CUDA C++ Programming Guide; PTX ISA, "mma.m16n8k16",
// "cp.async", "wgmma.mma_async", matrix descriptors without swizzle).
//
// Blocks run one after another, the threads of a block as fibers. A thread runs until it waits: at a barrier, or for
// its warp in a collective (shuffle, mma). A seed permutes blocks, warps and lanes, says at which collectives another
// warp goes on, and whether an asynchronous copy or product is made when it is issued or only when it is waited for,
// from what registers and memory hold then: a missing barrier or wait gives other results for some seeds. Shared memory
// begins as NaNs, at its exact size on the heap.
//
// What it does not show: memory ordering between blocks (they do not overlap) and between copies and products
// (fence_products), that the four warps of a group come together, bank conflicts, and the bits of an mma's
// sum, whose order the hardware leaves open; here it is by k, in float.
//
// What a kernel does wrong against this model (lanes in different collectives, threads missing at a barrier, a copy
// that is not aligned, a thread that did not wait for earlier kernels) ends the program with a sentence.
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/numeric.h"
#include "kernels/cuda/contract.h"

#define AWQ_KERNEL
#define AWQ_DEVICE inline
#define AWQ_BOUNDS(threads, blocks)
#define AWQ_ARGUMENTS const
#define AWQ_UNROLL
#define AWQ_NO_UNROLL

namespace awq::cuda {

namespace executor {

/// 0: everything in order, copies made when they are issued.
void set_seed(uint64_t seed);
/// Runs body(argument) in `blocks` blocks of `threads` threads with so many bytes of shared memory.
void run(int blocks, int threads, int shared_bytes, void (*body)(const void*), const void* argument);

struct Place {
  int thread = 0, threads = 0, block = 0, blocks = 0;
  uint8_t* shared = nullptr;
};
extern Place here;  // of the thread that runs

void block_barrier();
void set_waited();      // for earlier kernels
void require_waited();  // of the thread that ends
enum class Collective : int { sync, shuffle, mma, group, group_wait };
/// Leaves `bytes` of this lane, waits for the whole warp, and returns what all lanes left, `kSlot` bytes apart.
/// The last lane to come first calls `complete` on them, if there is one.
constexpr int kSlot = 64;
uint8_t* collective(Collective kind, const void* own, int bytes, void (*complete)(uint8_t* all) = nullptr);
void copy_async(void* to, const void* from, bool valid);
void commit_copies();
void wait_copies(int most);
void mma_f16(uint8_t* all);
void mma_bf16(uint8_t* all);
void group_f16(uint8_t* all);
void group_bf16(uint8_t* all);
void finish_groups(uint8_t* all);

struct MmaSlot {
  float d[4];
  uint32_t a[4], b[2];
};
static_assert(sizeof(MmaSlot) <= kSlot);

inline void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, void (*complete)(uint8_t*)) {
  const MmaSlot own{{d[0], d[1], d[2], d[3]}, {a[0], a[1], a[2], a[3]}, {b0, b1}};
  const uint8_t* all = collective(Collective::mma, &own, sizeof(own), complete);
  std::memcpy(d, all + here.thread % kWarp * kSlot, sizeof(d));
}

/// Registers stay where they are: the product reads and writes them when it is made.
struct GroupSlot {
  float* d;
  const uint32_t* a;
  uint64_t b;
};
inline void group(float (&d)[64], const uint32_t (&a)[4], uint64_t b, void (*complete)(uint8_t*)) {
  const GroupSlot own{d, a, b};
  collective(Collective::group, &own, sizeof(own), complete);
}

template <class T>
T shuffle(T v, int mask) {
  const uint8_t* all = collective(Collective::shuffle, &v, sizeof(v));
  std::memcpy(&v, all + ((here.thread % kWarp) ^ mask) * kSlot, sizeof(v));
  return v;
}

template <class Round, class Widen>
uint32_t pairs(uint32_t a, uint32_t b, uint32_t c, Round round, Widen widen) {
  const auto one = [&](int shift) {
    const auto at = [&](uint32_t v) { return double(widen(uint16_t(v >> shift))); };
    return uint32_t(round(float(at(a) * at(b) + at(c)))) << shift;
  };
  return one(0) | one(16);
}

}  // namespace executor

struct alignas(16) Words4 {
  uint32_t w[4];
};

inline int thread() { return executor::here.thread; }
inline int threads() { return executor::here.threads; }
inline int block() { return executor::here.block; }
inline int blocks() { return executor::here.blocks; }
inline void after_earlier() { executor::set_waited(); }
inline void sync_block() { executor::block_barrier(); }
inline void sync_warp() { executor::collective(executor::Collective::sync, nullptr, 0); }
inline void fence() {}
inline int add_at(int* p, int v) {
  const int before = *p;
  *p += v;
  return before;
}
inline float shuffle_xor(float v, int mask) { return executor::shuffle(v, mask); }
inline int shuffle_xor(int v, int mask) { return executor::shuffle(v, mask); }
inline uint8_t* shared_memory() { return executor::here.shared; }

inline Words4 load16(const void* p) { return *static_cast<const Words4*>(p); }
inline Words4 stream16(const void* p) { return load16(p); }
inline void store16(void* p, const Words4& v) { *static_cast<Words4*>(p) = v; }

inline uint32_t bits_of(float v) { return std::bit_cast<uint32_t>(v); }
inline float float_of(uint32_t v) { return std::bit_cast<float>(v); }
inline float fused(float a, float b, float c) { return std::fma(a, b, c); }
inline float root(float v) { return std::sqrt(v); }
inline float power2(float v) { return std::exp2(v); }

// The product of two 16-bit floats is exact in double, and rounding its sum with a third to float first changes a
// result only where 29 bits are one way: no code that kernels decode is such.
struct F16 {
  static constexpr Half kHalf = Half::f16;
  static uint32_t pack(float a, float b) { return f32_to_f16(a) | uint32_t(f32_to_f16(b)) << 16; }
  static float low(uint32_t v) { return f16_to_f32(uint16_t(v)); }
  static uint32_t fused2(uint32_t a, uint32_t b, uint32_t c) {
    return executor::pairs(a, b, c, f32_to_f16, f16_to_f32);
  }
  static uint32_t subtract(uint32_t a, uint32_t b) { return fused2(a, 0x3c003c00u, b ^ 0x80008000u); }
  static void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    executor::mma(d, a, b0, b1, executor::mma_f16);
  }
  static void multiply_group(float (&d)[64], const uint32_t (&a)[4], uint64_t b) {
    executor::group(d, a, b, executor::group_f16);
  }
};
struct Bf16 {
  static constexpr Half kHalf = Half::bf16;
  static uint32_t pack(float a, float b) { return f32_to_bf16(a) | uint32_t(f32_to_bf16(b)) << 16; }
  static float low(uint32_t v) { return bf16_to_f32(uint16_t(v)); }
  static uint32_t fused2(uint32_t a, uint32_t b, uint32_t c) {
    return executor::pairs(a, b, c, f32_to_bf16, bf16_to_f32);
  }
  static uint32_t subtract(uint32_t a, uint32_t b) { return fused2(a, 0x3f803f80u, b ^ 0x80008000u); }
  static void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    executor::mma(d, a, b0, b1, executor::mma_bf16);
  }
  static void multiply_group(float (&d)[64], const uint32_t (&a)[4], uint64_t b) {
    executor::group(d, a, b, executor::group_bf16);
  }
};

constexpr bool kHasWarpgroups = true;
inline uint64_t tile_descriptor(const void* shared, int chunk, int eight) {
  const auto at = uint64_t(static_cast<const uint8_t*>(shared) - executor::here.shared);
  return at >> 4 | uint64_t(chunk >> 4) << 16 | uint64_t(eight >> 4) << 32;
}
inline void fence_products() {}
inline void begin_products(uint32_t (&)[4][4]) {}
inline void commit_products() {}
inline void wait_products() {
  executor::collective(executor::Collective::group_wait, nullptr, 0, executor::finish_groups);
}

inline void copy_async(void* shared, const void* global, bool valid) { executor::copy_async(shared, global, valid); }
inline void commit_copies() { executor::commit_copies(); }
template <int N>
void wait_copies() {
  executor::wait_copies(N);
}

}  // namespace awq::cuda
