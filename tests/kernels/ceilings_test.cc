#include "kernels/ceilings.h"

#include <gtest/gtest.h>

#include <fstream>

#include "kernels/sets.h"

namespace awq::kernels {
namespace {

constexpr DType kAll[] = {DType::f32, DType::bf16, DType::i16, DType::i8};

#if defined(__x86_64__)
constexpr double kSlowest = 1;  // the slowest CPU with AVX2 does more
#else
constexpr double kSlowest = 0.01;  // emulated
#endif

// A core starts at most three vector instructions a cycle of at most 512 bits, at most 6 GHz: 3 * 6 * 128 operations of
// 8 bits. Register tiles do 16 times as much.
void expect_plausible(const KernelSet& set, DType type, double tile) {
  ThreadPool pool(1);
  const std::optional<double> rate = peak_rate(pool, set, type);
  ASSERT_TRUE(rate.has_value()) << set.name << " " << name_of(type);
  EXPECT_GT(*rate, kSlowest) << set.name << " " << name_of(type);
  EXPECT_LT(*rate, 3 * 6 * 128 * tile) << set.name << " " << name_of(type);
}

TEST(Ceilings, EverySetWithInstructionsOfItsOwn) {
  for (const KernelSet* set : compiled())
    if (supported(*set) && set->needs)
      for (const DType type : {DType::f32, DType::i16, DType::i8}) expect_plausible(*set, type, 16);
}

#if defined(__x86_64__)
bool cpu_has(const std::string& flag) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string word; file >> word;)
    if (word == flag) return true;
  return false;
}

TEST(Ceilings, SetsThatThisBuildMayLack) {
  KernelSet vnni{}, amx{};
  vnni.name = "avxvnni", amx.name = "amx";
  if (cpu_has("avx_vnni"))
    for (const DType type : {DType::f32, DType::i16, DType::i8}) expect_plausible(vnni, type, 1);
  if (cpu_has("amx_int8") && cpu_has("amx_bf16"))
    for (const DType type : kAll) expect_plausible(amx, type, 16);
}
#endif

TEST(Ceilings, NothingIsInventedWhereThereIsNoInstruction) {
  ThreadPool pool(1);
  for (const DType type : kAll) EXPECT_FALSE(peak_rate(pool, *compiled().back(), type).has_value());
}

TEST(Ceilings, ReadsTheWholeBufferAtAPlausibleRate) {
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    ReadBandwidth read(pool, size_t(50) << 20);
    EXPECT_GE(read.bytes(), size_t(50) << 20);
    EXPECT_EQ(read.bytes() % (size_t(2) << 20), 0U);
    for (int i = 0; i < 3; ++i) read.pass();
    EXPECT_GT(read.median(), 0.05);  // GB/s: under sanitizers, on a busy machine
    EXPECT_LT(read.best(), 10000);   // caches of all cores together
    EXPECT_LE(read.median(), read.best());
  }
}

}  // namespace
}  // namespace awq::kernels
