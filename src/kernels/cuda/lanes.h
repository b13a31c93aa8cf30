#pragma once
// What kernels are written in: a thread's place, barriers, shuffles, 16-bit pairs, and the instructions of tensor cores
// and asynchronous copies. For the GPU each is a few lines of PTX here; for the host tests/cuda/executor.h has the same
// functions by their documented meaning.
#include <cmath>

#include "kernels/cuda/contract.h"

#ifdef __CUDACC__
#define AWQ_KERNEL __global__
#define AWQ_DEVICE __device__ __forceinline__
#define AWQ_BOUNDS(threads, blocks) __launch_bounds__(threads, blocks)
#define AWQ_ARGUMENTS const __grid_constant__  // stay where they are when they are indexed
#define AWQ_UNROLL _Pragma("unroll")
#define AWQ_NO_UNROLL _Pragma("unroll 1")

namespace awq::cuda {

struct alignas(16) Words4 {
  uint32_t w[4];
};

AWQ_DEVICE int thread() { return int(threadIdx.x); }
AWQ_DEVICE int threads() { return int(blockDim.x); }
AWQ_DEVICE int block() { return int(blockIdx.x); }
AWQ_DEVICE int blocks() { return int(gridDim.x); }
/// What a kernel does before it reads or writes what others have: from sm_90 on it begins while the one before it runs
/// ("programmatic dependent launch"), and here waits until that has ended and what it wrote is seen. Since every thread
/// of every kernel waits, all that came earlier has ended too. Then the next may begin.
AWQ_DEVICE void after_earlier() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
AWQ_DEVICE void sync_block() { __syncthreads(); }
AWQ_DEVICE void sync_warp() { __syncwarp(); }
/// What this thread wrote is seen by all blocks before what it writes next.
AWQ_DEVICE void fence() { __threadfence(); }
AWQ_DEVICE int add_at(int* p, int v) { return atomicAdd(p, v); }
AWQ_DEVICE float shuffle_xor(float v, int mask) { return __shfl_xor_sync(0xffffffffu, v, mask); }
AWQ_DEVICE int shuffle_xor(int v, int mask) { return __shfl_xor_sync(0xffffffffu, v, mask); }
AWQ_DEVICE uint8_t* shared_memory() {
  extern __shared__ uint4 awq_shared[];
  return reinterpret_cast<uint8_t*>(awq_shared);
}

AWQ_DEVICE Words4 load16(const void* p) {
  const uint4 v = *static_cast<const uint4*>(p);
  return {{v.x, v.y, v.z, v.w}};
}
/// Of memory that is read once: it need not stay in the first-level cache.
AWQ_DEVICE Words4 stream16(const void* p) {
  Words4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.w[0]), "=r"(v.w[1]), "=r"(v.w[2]), "=r"(v.w[3])
               : "l"(p));
  return v;
}
AWQ_DEVICE void store16(void* p, const Words4& v) {
  *static_cast<uint4*>(p) = make_uint4(v.w[0], v.w[1], v.w[2], v.w[3]);
}

AWQ_DEVICE uint32_t bits_of(float v) { return __float_as_uint(v); }
AWQ_DEVICE float float_of(uint32_t v) { return __uint_as_float(v); }
AWQ_DEVICE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
AWQ_DEVICE float root(float v) { return __fsqrt_rn(v); }
AWQ_DEVICE float power2(float v) { return exp2f(v); }

// Products of four warps, which only sm_90a has. Elsewhere kernels that use them are empty.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
constexpr bool kHasWarpgroups = true;
// clang-format off
#define AWQ_MULTIPLY_GROUP(type) \
  asm volatile( \
      "{.reg .pred p; setp.ne.b32 p, 1, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {" \
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, " \
      "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, " \
      "%38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, " \
      "%56, %57, %58, %59, %60, %61, %62, %63" \
      "}, {%64,%65,%66,%67}, %68, p, 1, 1, 0;}" \
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
        "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), \
        "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), \
        "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), \
        "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), \
        "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), \
        "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]), "+f"(d[49]), \
        "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), "+f"(d[56]), \
        "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63]) \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
// clang-format on
#define AWQ_GROUP_ASM(text) asm volatile(text ::: "memory")
#else
constexpr bool kHasWarpgroups = false;
#define AWQ_MULTIPLY_GROUP(type) (void)d, (void)a, (void)b
#define AWQ_GROUP_ASM(text)
#endif

/// 16-bit floats in pairs, the first in the low half. Conversions round to nearest even.
struct F16 {
  static constexpr Half kHalf = Half::f16;
  AWQ_DEVICE static uint32_t pack(float a, float b) {
    uint32_t r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(b), "f"(a));
    return r;
  }
  AWQ_DEVICE static float low(uint32_t v) {
    float r;
    asm("{.reg .f16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, l;}" : "=f"(r) : "r"(v));
    return r;
  }
  AWQ_DEVICE static uint32_t subtract(uint32_t a, uint32_t b) {
    uint32_t r;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
  }
  AWQ_DEVICE static uint32_t fused2(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t r;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
  }
  AWQ_DEVICE static void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
  /// d += a * b of 64 rows and 128 tokens, of which this warp has the sixteen rows from 16 (warp % 4) on; `a` is as for
  /// mma, d is as its results, eight tokens after eight. It reads and writes until wait_products.
  AWQ_DEVICE static void multiply_group(float (&d)[64], const uint32_t (&a)[4], uint64_t b) {
    AWQ_MULTIPLY_GROUP("f16");
  }
};
struct Bf16 {
  static constexpr Half kHalf = Half::bf16;
  AWQ_DEVICE static uint32_t pack(float a, float b) {
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(b), "f"(a));
    return r;
  }
  AWQ_DEVICE static float low(uint32_t v) { return float_of(v << 16); }
  /// By fma, as sm_80 has no bf16 subtraction: a - b = 1 * a + (-b), rounded once.
  AWQ_DEVICE static uint32_t subtract(uint32_t a, uint32_t b) { return fused2(a, 0x3f803f80u, b ^ 0x80008000u); }
  AWQ_DEVICE static uint32_t fused2(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t r;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
  }
  AWQ_DEVICE static void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
  /// d += a * b of 64 rows and 128 tokens, of which this warp has the sixteen rows from 16 (warp % 4) on; `a` is as for
  /// mma, d is as its results, eight tokens after eight. It reads and writes until wait_products.
  AWQ_DEVICE static void multiply_group(float (&d)[64], const uint32_t (&a)[4], uint64_t b) {
    AWQ_MULTIPLY_GROUP("bf16");
  }
};

/// 16 bytes from device to shared memory; zeros where `valid` is false. They are there after wait_copies and a barrier.
AWQ_DEVICE void copy_async(void* shared, const void* global, bool valid) {
  const auto to = uint32_t(__cvta_generic_to_shared(shared));
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
}
AWQ_DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Until at most N of the groups that this thread committed are on their way.
template <int N>
AWQ_DEVICE void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/// Of tokens in shared memory: columns 8 c on of eight tokens are 128 bytes after each other, `chunk` bytes on are
/// their next eight columns, `eight` bytes on the next eight tokens.
AWQ_DEVICE uint64_t tile_descriptor(const void* shared, int chunk, int eight) {
  const auto at = uint32_t(__cvta_generic_to_shared(shared));
  return uint64_t(at >> 4 & 0x3fff) | uint64_t(chunk >> 4 & 0x3fff) << 16 | uint64_t(eight >> 4 & 0x3fff) << 32;
}
/// What this thread copied to shared memory is seen by products that begin after the next barrier.
AWQ_DEVICE void fence_products() { AWQ_GROUP_ASM("fence.proxy.async.shared::cta;"); }
/// Before products, whose left registers are these: what makes them may not be moved behind the first.
AWQ_DEVICE void begin_products([[maybe_unused]] uint32_t (&a)[4][4]) {
  AWQ_UNROLL
  for (int i = 0; i < 4; ++i) asm volatile("" : "+r"(a[i][0]), "+r"(a[i][1]), "+r"(a[i][2]), "+r"(a[i][3])::"memory");
  AWQ_GROUP_ASM("wgmma.fence.sync.aligned;");
}
AWQ_DEVICE void commit_products() { AWQ_GROUP_ASM("wgmma.commit_group.sync.aligned;"); }
/// Until all products have ended: their sums are there, and what they read may be written over.
AWQ_DEVICE void wait_products() { AWQ_GROUP_ASM("wgmma.wait_group.sync.aligned 0;"); }

}  // namespace awq::cuda
#else
#include "cuda/executor.h"
#endif

namespace awq::cuda {

AWQ_DEVICE int lane() { return thread() % kWarp; }
AWQ_DEVICE int warp() { return thread() / kWarp; }
template <class T>
AWQ_DEVICE float high(uint32_t v) {
  return T::low(v >> 16);
}
AWQ_DEVICE float largest(float a, float b) { return a > b ? a : b; }
template <class F>
AWQ_DEVICE float over_warp(float v, F f) {
  for (int m = kWarp / 2; m > 0; m /= 2) v = f(v, shuffle_xor(v, m));
  return v;
}
AWQ_DEVICE float warp_sum(float v) {
  return over_warp(v, [](float a, float b) { return a + b; });
}
AWQ_DEVICE float warp_max(float v) {
  return over_warp(v, [](float a, float b) { return largest(a, b); });
}
/// Of a block of any number of warps; `scratch` has a float for each, and all threads get the same.
template <class F>
AWQ_DEVICE float over_block(float v, float* scratch, F f) {
  v = over_warp(v, f);
  if (lane() == 0) scratch[warp()] = v;
  sync_block();
  v = scratch[0];
  for (int i = 1; i < threads() / kWarp; ++i) v = f(v, scratch[i]);
  sync_block();
  return v;
}

}  // namespace awq::cuda
