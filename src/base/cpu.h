#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace awq {

/// Groups of instructions a kernel set may need; a bit is set only if the CPU has all of the group and the OS saves
/// its registers.
enum CpuFeature : uint32_t {
  kAvx2 = 1,        // AVX2, FMA, F16C, BMI2
  kAvx512Vnni = 2,  // AVX-512 F, BW, VL, DQ, CD and VNNI
  kAvx512Bf16 = 4,
  kAvxVnni = 8,    // 256-bit dot products of integers
  kAmx = 16,       // tiles of int8 and bfloat16, AVX-512 VBMI, and the kernel lets this process use them
  kNeonDot = 256,  // AArch64: dot product of Advanced SIMD
  kI8mm = 512,     // and its products of 8-bit matrices
};
uint32_t cpu_features();
/// "AMD EPYC 9755", "Arm CPU, implementer 0x41, part 0xd0c"; "unknown CPU" where the system does not tell.
std::string cpu_name();
int usable_cpus();     // hyper-threads this process may use: the most threads that make sense
int physical_cores();  // cores this process may use, hyper-threads counted once
/// A CPU of each core, where `threads` busy threads should stay on them so that no two share a core: where cores have
/// hyper-threads and `threads` leave them idle. Empty otherwise.
std::vector<int> one_cpu_per_core(int threads);
void stay_on(const std::vector<int>& cpus);  // the calling thread; none, or a refusal by the system: as it is

}  // namespace awq
