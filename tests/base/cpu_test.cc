#include "base/cpu.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <fstream>
#include <sstream>
#include <thread>

namespace awq {
namespace {

#if defined(__x86_64__)
// What the kernel reports, which leaves out what the OS does not save.
bool proc_flag(const std::string& flag) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.rfind("flags", 0) == 0) return (line + " ").find(" " + flag + " ") != std::string::npos;
  return false;
}

bool proc_has(const std::string& flags) {
  std::istringstream in(flags);
  for (std::string flag; in >> flag;)
    if (!proc_flag(flag)) return false;
  return true;
}

TEST(Cpu, FeaturesAreThoseTheKernelReports) {
  const uint32_t f = cpu_features();
  EXPECT_EQ((f & kAvx2) != 0, proc_has("avx2 fma f16c bmi2"));
  EXPECT_EQ((f & kAvx512Vnni) != 0,
            proc_has("avx2 fma f16c bmi2 avx512f avx512bw avx512vl avx512dq avx512cd avx512_vnni"));
  EXPECT_EQ((f & kAvx512Bf16) != 0, proc_has("avx512_vnni avx512_bf16"));
}

#elif defined(__aarch64__)
// The kernel answers for it.
TEST(Cpu, FeaturesAreThoseOfTheIdentificationRegisters) {
  uint64_t id0 = 0, id1 = 0;
  __asm__("mrs %0, ID_AA64ISAR0_EL1" : "=r"(id0));
  __asm__("mrs %0, ID_AA64ISAR1_EL1" : "=r"(id1));
  EXPECT_EQ((cpu_features() & kNeonDot) != 0, (id0 >> 44 & 15) != 0);
  EXPECT_EQ((cpu_features() & kI8mm) != 0, (id1 >> 52 & 15) != 0);
}
#endif

// Where it reports one: QEMU shows the file of the machine that it runs on.
TEST(Cpu, NameIsTheKernels) {
#if defined(__x86_64__)
  const std::string key = "model name";
#else
  const std::string key = "CPU part";
#endif
  EXPECT_FALSE(cpu_name().empty());
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.rfind(key, 0) == 0) {
      EXPECT_TRUE(cpu_name().ends_with(line.substr(line.find(": ") + 2))) << cpu_name();
      return;
    }
}

TEST(Cpu, CoresAreThoseThisThreadMayUse) {
  cpu_set_t all{};
  ASSERT_EQ(sched_getaffinity(0, sizeof(all), &all), 0);
  EXPECT_GE(physical_cores(), 1);
  EXPECT_LE(physical_cores(), CPU_COUNT(&all));
  int pinned = 0;
  std::thread([&] {
    cpu_set_t one{};
    for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++i)
      if (CPU_ISSET(i, &all)) CPU_SET(i, &one);
    if (sched_setaffinity(0, sizeof(one), &one) == 0) pinned = physical_cores();
  }).join();
  EXPECT_EQ(pinned, 1);
}

TEST(Cpu, ThreadsStayOnCpusOfDifferentCores) {
  const std::vector<int> cpus = one_cpu_per_core(physical_cores());
  EXPECT_EQ(cpus.empty(), usable_cpus() == physical_cores());
  EXPECT_TRUE(one_cpu_per_core(usable_cpus() + 1).empty());
  int cores = 0;
  std::thread([&] {
    stay_on({sched_getcpu()});
    cores = physical_cores();
    stay_on({});
    EXPECT_EQ(physical_cores(), cores);
  }).join();
  EXPECT_EQ(cores, 1);
}

}  // namespace
}  // namespace awq
