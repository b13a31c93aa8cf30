// AArch64 with products of 8-bit matrices: many tokens with 8-bit activations take half as many instructions as with
// dot products. Everything else is `neon`.
#include "kernels/neon.h"

namespace awq::kernels {
namespace {

struct NeonI8mm : Neon {
  static constexpr ByteDot kByteDot = ByteDot::kPairs;

  static I two_rows(const uint8_t* a, const uint8_t* b) {
    return vreinterpretq_s32_u8(vcombine_u8(vld1_u8(a), vld1_u8(b)));
  }
  static I dot_pairs(I sum, I a, I b) { return vmmlaq_s32(sum, vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b)); }
  static I zip_low32(I a, I b) { return vzip1q_s32(a, b); }
  static I zip_high32(I a, I b) { return vzip2q_s32(a, b); }
  static I zip_low64(I a, I b) { return vreinterpretq_s32_s64(vzip1q_s64(wide(a), wide(b))); }
  static I zip_high64(I a, I b) { return vreinterpretq_s32_s64(vzip2q_s64(wide(a), wide(b))); }

 private:
  static int64x2_t wide(I a) { return vreinterpretq_s64_s32(a); }
};

}  // namespace

extern const KernelSet neon_i8mm;
constinit const KernelSet neon_i8mm = vector_set<NeonI8mm>("neon_i8mm", 256 | 512);  // kNeonDot, kI8mm

}  // namespace awq::kernels
