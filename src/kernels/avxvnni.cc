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
constinit const KernelSet avxvnni = vector_set<AvxVnni>("avxvnni", 1 | 8);  // kAvx2, kAvxVnni

}  // namespace awq::kernels
