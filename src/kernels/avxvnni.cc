// AVX2 with the 256-bit dot products of AVX-VNNI.
#include "kernels/avx2.h"

namespace awq::kernels {
namespace {

struct AvxVnni : Avx2 {
  static constexpr int kChains = 2;  // and two vectors: the dot product's latency is 5 cycles, two start in each
  // As text: GCC 12 copies the sum before and after the intrinsic.
  static I dot16(I sum, I a, I b) {
    __asm__("%{vex%} vpdpwssd %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
    return sum;
  }
  static I dot8(I sum, I a, I b) {
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
    return sum;
  }
};

}  // namespace

extern const KernelSet avxvnni;
const KernelSet avxvnni = {
    .name = "avxvnni",
    .needs = 1 | 8,  // kAvx2, kAvxVnni
    .gemm_f32 = gemm<AvxVnni, float>,
    .gemm_bf16 = gemm<AvxVnni, Bf16>,
    .gemm_f16 = gemm<AvxVnni, F16>,
    .token_block = 1,
    .quantize_i16 = quantize_i16,
    .quantize_i8 = quantize_i8,
    .matmul_i16 = matmul_i16<AvxVnni>,
    .matmul_i8 = matmul_i8<AvxVnni>,
    .rms_norm = rms_norm,
    .softmax = softmax,
    .silu_mul = silu_mul,
    .gelu_tanh_mul = gelu_tanh_mul,
    .add = add,
    .rope = rope,
    .log_sum_exp = log_sum_exp,
    .attend_f32 = attend<AvxVnni, float>,
    .attend_bf16 = attend<AvxVnni, Bf16>,
    .attend_f16 = attend<AvxVnni, F16>,
    .attend_i8 = attend<AvxVnni, int8_t>,
    .attention_merge = attention_merge,
};

}  // namespace awq::kernels
