// AVX2, FMA, F16C.
#include "kernels/avx2.h"

namespace awq::kernels {

extern const KernelSet avx2;
constinit const KernelSet avx2 = vector_set<Avx2>("avx2", 1);  // kAvx2

}  // namespace awq::kernels
