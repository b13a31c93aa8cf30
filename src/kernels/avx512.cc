// AVX-512 with VNNI.
#include "kernels/avx512.h"

namespace awq::kernels {

extern const KernelSet avx512;
constinit const KernelSet avx512 = vector_set<Avx512>("avx512", 1 | 2);  // kAvx2, kAvx512Vnni

}  // namespace awq::kernels
