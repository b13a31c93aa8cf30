// AArch64 with dot product.
#include "kernels/neon.h"

namespace awq::kernels {

extern const KernelSet neon;
constinit const KernelSet neon = vector_set<Neon>("neon", 256);  // kNeonDot

}  // namespace awq::kernels
