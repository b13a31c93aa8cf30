// AVX-512 with VNNI.
#include "kernels/avx512.h"

namespace awq::kernels {

extern const KernelSet avx512;
const KernelSet avx512 = {
    .name = "avx512",
    .needs = 1 | 2,  // kAvx2, kAvx512Vnni
    .gemm_f32 = gemm<Avx512, float>,
    .gemm_bf16 = gemm<Avx512, Bf16>,
    .gemm_f16 = gemm<Avx512, F16>,
    .token_block = 1,
    .quantize_i16 = quantize_i16,
    .quantize_i8 = quantize_i8,
    .matmul_i16 = matmul_i16<Avx512>,
    .matmul_i8 = matmul_i8<Avx512>,
    .rms_norm = rms_norm,
    .softmax = softmax,
    .silu_mul = silu_mul,
    .gelu_tanh_mul = gelu_tanh_mul,
    .add = add,
    .rope = rope,
    .log_sum_exp = log_sum_exp,
    .attend_f32 = attend<Avx512, float>,
    .attend_bf16 = attend<Avx512, Bf16>,
    .attend_f16 = attend<Avx512, F16>,
    .attend_i8 = attend<Avx512, int8_t>,
    .attention_merge = attention_merge,
};

}  // namespace awq::kernels
