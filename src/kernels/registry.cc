#include "kernels/registry.h"

#include <cstdlib>
#include <string>

#include "base/check.h"
#include "base/cpu.h"

namespace awq::kernels {

#ifdef AWQ_HAVE_AMX
extern const KernelSet amx;
#endif
#ifdef AWQ_HAVE_AVX512
extern const KernelSet avx512;
#endif
#ifdef AWQ_HAVE_AVXVNNI
extern const KernelSet avxvnni;
#endif
#ifdef AWQ_HAVE_AVX2
extern const KernelSet avx2;
#endif
#ifdef AWQ_HAVE_NEON_I8MM
extern const KernelSet neon_i8mm;
#endif
#ifdef AWQ_HAVE_NEON
extern const KernelSet neon;
#endif
extern const KernelSet portable;

std::span<const KernelSet* const> compiled() {
  static constexpr const KernelSet* kSets[] = {
#ifdef AWQ_HAVE_AMX
      &amx,
#endif
#ifdef AWQ_HAVE_AVX512
      &avx512,
#endif
#ifdef AWQ_HAVE_AVXVNNI
      &avxvnni,
#endif
#ifdef AWQ_HAVE_AVX2
      &avx2,
#endif
#ifdef AWQ_HAVE_NEON_I8MM
      &neon_i8mm,
#endif
#ifdef AWQ_HAVE_NEON
      &neon,
#endif
      &portable,
  };
  return kSets;
}

bool supported(const KernelSet& set) { return (set.needs & ~cpu_features()) == 0; }

namespace {

std::string names(bool only_supported) {
  std::string list;
  for (const KernelSet* set : compiled())
    if (!only_supported || supported(*set)) list += (list.empty() ? "" : ", ") + std::string(set->name);
  return list;
}

const KernelSet& best() {
  for (const KernelSet* set : compiled())
    if (supported(*set)) return *set;
  return portable;
}

}  // namespace

const KernelSet& select(std::string_view name) {
  const char* env = name.empty() ? std::getenv("AWQ_ISA") : nullptr;
  if (env) name = env;
  if (name.empty()) return best();
  const char* from = env ? "AWQ_ISA" : "--isa";
  for (const KernelSet* set : compiled()) {
    if (name != set->name) continue;
    if (!supported(*set))
      fail("instruction set", "{}: {} cannot run on this CPU ({}), which lacks what it needs; {} can", from, name,
           cpu_name(), names(true));
    return *set;
  }
  fail("instruction set", "{}: \"{}\" is not one; this build has {}, of which this CPU runs {}", from, name,
       names(false), names(true));
}

}  // namespace awq::kernels
