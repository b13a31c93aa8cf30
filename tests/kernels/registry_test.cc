#include "kernels/registry.h"

#include <cstdlib>
#include <string>

#include "awq/error.h"
#include "kernels/sets.h"

namespace awq::kernels {
namespace {

/// Sets AWQ_ISA for one test.
class Environment {
 public:
  explicit Environment(const char* value) {
    if (const char* old = std::getenv("AWQ_ISA")) old_ = old, had_ = true;
    if (value)
      setenv("AWQ_ISA", value, 1);
    else
      unsetenv("AWQ_ISA");
  }
  ~Environment() {
    if (had_)
      setenv("AWQ_ISA", old_.c_str(), 1);
    else
      unsetenv("AWQ_ISA");
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  std::string old_;
  bool had_ = false;
};

std::string message(std::string_view name) {
  try {
    select(name);
  } catch (const Error& e) {
    return e.what();
  }
  return "nothing was thrown";
}

TEST(Registry, BestFirstAndPortableLast) {
  const Environment none(nullptr);
  EXPECT_STREQ(compiled().back()->name, "portable");
  EXPECT_TRUE(supported(*compiled().back()));
  for (const KernelSet* set : compiled())
    if (supported(*set)) {
      EXPECT_EQ(&select(), set);
      break;
    }
}

TEST(Registry, SelectsByNameAndEnvironment) {
  const Environment env("portable");
  EXPECT_STREQ(select().name, "portable");
  for (const KernelSet* set : compiled())
    if (supported(*set)) {
      EXPECT_EQ(&select(set->name), set);
    }
}

TEST(Registry, UnknownNamesWhatExists) {
  const std::string text = message("sse9");
  EXPECT_NE(text.find("[instruction set] --isa: \"sse9\""), std::string::npos) << text;
  for (const KernelSet* set : compiled()) EXPECT_NE(text.find(set->name), std::string::npos) << text;
  const Environment env("sse9");
  EXPECT_NE(message("").find("AWQ_ISA: \"sse9\""), std::string::npos) << message("");
}

TEST(Registry, RefusesWhatTheCpuLacks) {
  for (const KernelSet* set : compiled()) {
    if (supported(*set)) continue;
    const std::string text = message(set->name);
    EXPECT_NE(text.find(std::string(set->name) + " cannot run on this CPU"), std::string::npos) << text;
    EXPECT_NE(text.find("portable"), std::string::npos) << text;
    return;
  }
  GTEST_SKIP() << "this CPU runs every set";
}

TEST(Registry, NeedsAreBitsOfCpuFeature) {
  for (const KernelSet* set : compiled())
    EXPECT_EQ(set->needs & ~uint32_t(kAvx2 | kAvx512Vnni | kAvx512Bf16 | kAvxVnni | kAmx | kNeonDot | kI8mm), 0U)
        << set->name;
}

#if defined(__x86_64__)
TEST(Registry, Avx512IsTested) {
#ifdef AWQ_EMULATED_AVX512
  EXPECT_STREQ(avx512_emulated.name, "avx512");
#else
  if (std::none_of(compiled().begin(), compiled().end(),
                   [](const KernelSet* s) { return std::string(s->name) == "avx512" && supported(*s); }))
    GTEST_SKIP()
        << "AVX-512 kernels are not tested: this CPU lacks them and SIMDe (libsimde-dev) was not found to emulate them";
#endif
}
#endif

}  // namespace
}  // namespace awq::kernels
