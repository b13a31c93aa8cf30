// AArch64 with dot product.
#include "kernels/neon.h"

namespace awq::kernels {

extern const KernelSet neon;
const KernelSet neon = {
    .name = "neon",
    .needs = 256,  // kNeonDot
    .gemm_f32 = gemm<Neon, float>,
    .gemm_bf16 = gemm<Neon, Bf16>,
    .gemm_f16 = gemm<Neon, F16>,
    .token_block = 1,
    .quantize_i16 = quantize_i16,
    .quantize_i8 = quantize_i8,
    .matmul_i16 = matmul_i16<Neon>,
    .matmul_i8 = matmul_i8<Neon>,
    .rms_norm = rms_norm,
    .softmax = softmax,
    .silu_mul = silu_mul,
    .gelu_tanh_mul = gelu_tanh_mul,
    .add = add,
    .rope = rope,
    .log_sum_exp = log_sum_exp,
    .attend_f32 = attend<Neon, float>,
    .attend_bf16 = attend<Neon, Bf16>,
    .attend_f16 = attend<Neon, F16>,
    .attend_i8 = attend<Neon, int8_t>,
    .attention_merge = attention_merge,
};

}  // namespace awq::kernels
