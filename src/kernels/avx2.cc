// AVX2, FMA, F16C.
#include "kernels/avx2.h"

namespace awq::kernels {

extern const KernelSet avx2;
const KernelSet avx2 = {
    .name = "avx2",
    .needs = 1,  // kAvx2
    .gemm_f32 = gemm<Avx2, float>,
    .gemm_bf16 = gemm<Avx2, Bf16>,
    .gemm_f16 = gemm<Avx2, F16>,
    .token_block = 1,
    .quantize_i16 = quantize_i16,
    .quantize_i8 = quantize_i8,
    .matmul_i16 = matmul_i16<Avx2>,
    .matmul_i8 = matmul_i8<Avx2>,
    .rms_norm = rms_norm,
    .softmax = softmax,
    .silu_mul = silu_mul,
    .gelu_tanh_mul = gelu_tanh_mul,
    .add = add,
    .rope = rope,
    .log_sum_exp = log_sum_exp,
    .attend_f32 = attend<Avx2, float>,
    .attend_bf16 = attend<Avx2, Bf16>,
    .attend_f16 = attend<Avx2, F16>,
    .attend_i8 = attend<Avx2, int8_t>,
    .attention_merge = attention_merge,
};

}  // namespace awq::kernels
