#include "base/cpu.h"

#include <sched.h>

#include <array>
#include <cmath>
#include <cstring>
#include <fstream>
#include <set>
#include <vector>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <fmt/format.h>
#include <sys/auxv.h>
#endif

namespace awq {
namespace {

// Leaves 0x80000002 .. 4 hold 48 characters, padded with blanks on some CPUs and NULs on others.
std::string brand_string() {
  std::string name;
#if defined(__x86_64__)
  std::array<unsigned, 12> words{};
  for (unsigned i = 0; i < 3; ++i) {
    unsigned* w = words.data() + 4 * i;
    if (!__get_cpuid(0x80000002 + i, w, w + 1, w + 2, w + 3)) return {};
  }
  name.assign(reinterpret_cast<const char*>(words.data()), sizeof(words));
  name.resize(std::strlen(name.c_str()));
#elif defined(__aarch64__)
  if (getauxval(AT_HWCAP) & HWCAP_CPUID) {  // the kernel answers for the register
    uint64_t id = 0;
    __asm__("mrs %0, MIDR_EL1" : "=r"(id));
    name = fmt::format("Arm CPU, implementer {:#04x}, part {:#05x}", id >> 24 & 0xff, id >> 4 & 0xfff);
  }
#endif
  const size_t first = name.find_first_not_of(' ');
  return first == std::string::npos ? std::string() : name.substr(first, name.find_last_not_of(' ') + 1 - first);
}

// A group of hyper-threads is known by the list of its members; without one (no sysfs) a CPU is its own core.
std::string core_of(int cpu) {
  const std::string name = "cpu" + std::to_string(cpu);
  std::ifstream file("/sys/devices/system/cpu/" + name + "/topology/thread_siblings_list");
  std::string siblings;
  return std::getline(file, siblings) ? siblings : name;
}

using CpuMask = std::array<cpu_set_t, 16>;  // 16,384 CPUs: calls fail if the kernel's mask is longer

std::vector<int> allowed_cpus() {
  CpuMask mask{};
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof(mask), mask.data()) != 0) return cpus;
  for (int cpu = 0; cpu < int(8 * sizeof(mask)); ++cpu)
    if (CPU_ISSET_S(cpu, sizeof(mask), mask.data())) cpus.push_back(cpu);
  return cpus;
}

std::vector<int> first_of_cores(const std::vector<int>& cpus) {
  std::set<std::string> seen;
  std::vector<int> first;
  for (const int cpu : cpus)
    if (seen.insert(core_of(cpu)).second) first.push_back(cpu);
  return first;
}

// Containers limit CPU time, not the CPUs that can be seen: "200000 100000" is two CPUs' worth, "max 100000" no limit.
int cpu_quota() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  double quota = 0, period = 0;
  if (!(file >> quota >> period) || quota <= 0 || period <= 0) return 1 << 20;
  return std::max(1, int(std::ceil(quota / period)));
}

#if defined(__x86_64__)
// CPUID leaf 7: bit 22 tiles of bfloat16, 24 tiles, 25 tiles of int8. Linux gives a process their registers only when
// it asks.
bool may_use_tiles() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d >> 22 & 0b1101) != 0b1101) return false;
#ifdef SYS_arch_prctl
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM of the kernel's <asm/prctl.h>
  static const bool granted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return granted;
#else
  return false;
#endif
}
#endif

}  // namespace

uint32_t cpu_features() {
  uint32_t found = 0;
#if defined(__x86_64__)
  // The builtin also asks xgetbv whether the OS saves the registers. Clang 14 knows no "f16c": every CPU with AVX2 has
  // it, but a hypervisor may hide it.
  __builtin_cpu_init();
  unsigned a = 0, b = 0, c = 0, d = 0;
  const bool f16c = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
  if (f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
    found |= kAvx2;
  if (found && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd") &&
      __builtin_cpu_supports("avx512vnni"))
    found |= kAvx512Vnni;
  if ((found & kAvx512Vnni) && __builtin_cpu_supports("avx512bf16")) found |= kAvx512Bf16;
  const bool leaf1 = __get_cpuid_count(7, 1, &a, &b, &c, &d);
  if ((found & kAvx2) && leaf1 && (a & 1u << 4)) found |= kAvxVnni;
  if ((found & kAvx512Bf16) && __builtin_cpu_supports("avx512vbmi") && may_use_tiles()) found |= kAmx;
#elif defined(__aarch64__)
  if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) found |= kNeonDot;
  if (getauxval(AT_HWCAP2) & HWCAP2_I8MM) found |= kI8mm;
#endif
  return found;
}

std::string cpu_name() {
  const std::string name = brand_string();
  return name.empty() ? "unknown CPU" : name;
}

std::vector<int> one_cpu_per_core(int threads) {
  const std::vector<int> cpus = allowed_cpus(), first = first_of_cores(cpus);
  return first.size() < cpus.size() && size_t(threads) <= first.size() ? first : std::vector<int>();
}

void stay_on(const std::vector<int>& cpus) {
  CpuMask mask{};
  for (const int cpu : cpus) CPU_SET_S(cpu, sizeof(mask), mask.data());
  if (!cpus.empty()) sched_setaffinity(0, sizeof(mask), mask.data());
}

int usable_cpus() { return std::max(1, std::min(int(allowed_cpus().size()), cpu_quota())); }

int physical_cores() { return std::max(1, std::min(int(first_of_cores(allowed_cpus()).size()), cpu_quota())); }

}  // namespace awq
