#pragma once
// AArch64 with dot product: 4 floats or int32 to a vector, four to a panel, 32 registers.
#include <arm_neon.h>

#include "kernels/vector_set.h"

namespace awq::kernels {
namespace {

struct Neon {
  using F = float32x4_t;
  using I = int32x4_t;
  static constexpr int kVecs = 4;
  static constexpr int kAcc = 24;  // of 32 registers: 4 hold weights, 1 an activation
  static constexpr int kTokens = 6;
  static constexpr int kFew = 24;
  static constexpr int kIntTokens = 6;
  static constexpr int kIntPanels = 1;
  static constexpr int kIntBlockBytes = 1024;
  static constexpr int kChains = 2;  // 8 sums in flight for one token; not timed, as are the numbers of tokens here
  static constexpr int kIntFew = 8;
  static constexpr int kFewSums = 16;
  static constexpr int kFewTokens = 4;
  static constexpr ByteDot kByteDot = ByteDot::kSigned;

  static F zero_f() { return vdupq_n_f32(0); }
  static F load(const float* p) { return vld1q_f32(p); }
  static F load(const Bf16* p) { return vreinterpretq_f32_u32(vshll_n_u16(load_16(p), 16)); }
  static F load(const int8_t* p) { return vcvtq_f32_s32(load_signed(p)); }
  static F load(const F8* p) {
    const uint32x4_t wide = vreinterpretq_u32_s32(load_signed(p));
    return vmulq_f32(vreinterpretq_f32_u32(vandq_u32(vshlq_n_u32(wide, 20), vdupq_n_u32(0x87f00000u))),
                     vdupq_n_f32(0x1p120f));
  }
  static F even(const Bf16* p) { return vreinterpretq_f32_u32(vshlq_n_u32(load_32(p), 16)); }
  static F odd(const Bf16* p) { return vreinterpretq_f32_u32(vandq_u32(load_32(p), vdupq_n_u32(0xffff0000u))); }
  static F load(const F16* p) { return vcvt_f32_f16(vreinterpret_f16_u16(load_16(p))); }
  static void store(float* p, F v) { vst1q_f32(p, v); }
  static F set1(float v) { return vdupq_n_f32(v); }
  static F mul(F a, F b) { return vmulq_f32(a, b); }
  static F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }

  static I zero_i() { return vdupq_n_s32(0); }
  static I load_words(const uint8_t* p) { return vreinterpretq_s32_u8(vld1q_u8(p)); }
  static I load_bytes(const uint8_t* p) {
    const uint8x8_t bytes = vcreate_u8(uint32_t(word_at(p)));
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))));
  }
  static I load_signed(const void* p) {
    int32_t four = 0;
    __builtin_memcpy(&four, p, sizeof(four));
    return vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four)))));
  }
  static I load(const int32_t* p) { return vld1q_s32(p); }
  static void store(int32_t* p, I v) { vst1q_s32(p, v); }
  static I set1(int32_t v) { return vdupq_n_s32(v); }
  static I and_i(I a, I b) { return vandq_s32(a, b); }
  static I or_i(I a, I b) { return vorrq_s32(a, b); }
  template <int N>
  static I shr16(I a) {
    return vreinterpretq_s32_u16(vshrq_n_u16(vreinterpretq_u16_s32(a), N));
  }
  template <int N>
  static I shl(I a) {
    return vshlq_n_s32(a, N);
  }
  static I add_i(I a, I b) { return vaddq_s32(a, b); }
  static I sub_i(I a, I b) { return vsubq_s32(a, b); }
  static I sub16(I a, I b) {
    return vreinterpretq_s32_s16(vsubq_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b)));
  }
  static I sub8(I a, I b) { return vreinterpretq_s32_s8(vsubq_s8(vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b))); }
  // A lane's two products lie side by side: multiplied in halves, then added pairwise.
  static I dot16(I sum, I a, I b) {
    const int16x8_t x = vreinterpretq_s16_s32(a), y = vreinterpretq_s16_s32(b);
    sum = vaddq_s32(sum, vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y)), vmull_high_s16(x, y)));
    __asm__("" : "+w"(sum));  // in this order: GCC would add up several products first and run out of registers
    return sum;
  }
  static I dot8(I sum, I a, I b) { return vdotq_s32(sum, vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b)); }
  static F to_float(I a) { return vcvtq_f32_s32(a); }

 private:
  static uint32x4_t load_32(const void* p) { return vld1q_u32(static_cast<const uint32_t*>(p)); }
  static uint16x4_t load_16(const void* p) { return vld1_u16(static_cast<const uint16_t*>(p)); }
};

}  // namespace
}  // namespace awq::kernels
