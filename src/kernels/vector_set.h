#pragma once
// A whole set from a struct of vector operations, as tiles.h, tiles_int.h and attention.h list them.
#include "kernels/attention.h"
#include "kernels/tiles_int.h"

namespace awq::kernels {
namespace {

template <class V>
constexpr KernelSet vector_set(const char* name, uint32_t needs) {
  return {
      .name = name,
      .needs = needs,
      .gemm_f32 = gemm<V, float>,
      .gemm_bf16 = gemm<V, Bf16>,
      .gemm_f16 = gemm<V, F16>,
      .token_block = 1,
      .quantize_i16 = quantize_act<int16_t>,
      .quantize_i8 = quantize_act<int8_t>,
      .matmul_i16 = matmul_i16<V>,
      .matmul_i8 = matmul_i8<V>,
      .rms_norm = rms_norm,
      .layer_norm = layer_norm,
      .softmax = softmax,
      .silu_mul = silu_mul,
      .sigmoid_mul = sigmoid_mul,
      .gelu_tanh_mul = gelu_tanh_mul,
      .gelu_mul = gelu_mul,
      .relu_mul = relu_mul,
      .relu2_mul = relu2_mul,
      .add = add,
      .rope = rope,
      .log_sum_exp = log_sum_exp,
      .attend_f32 = attend<V, float>,
      .attend_bf16 = attend<V, Bf16>,
      .attend_f16 = attend<V, F16>,
      .attend_i8 = attend<V, int8_t>,
      .attend_f8 = attend<V, F8>,
      .attention_merge = attention_merge,
  };
}

}  // namespace
}  // namespace awq::kernels
