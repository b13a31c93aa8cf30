#pragma once
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <random>
#include <string>
#include <vector>

#include "base/cpu.h"
#include "kernels/registry.h"

namespace awq::kernels {
#ifdef AWQ_EMULATED_AVX512
extern const KernelSet avx512_emulated;
#endif

/// A set as the tests name it; gtest prints `name`.
struct NamedSet {
  std::string name;
  const KernelSet* set;
  /// Products are added by fma, so that results equal a chain of std::fma bit for bit.
  bool fused() const { return set->needs != 0; }
  const KernelSet* operator->() const { return set; }
};
inline void PrintTo(const NamedSet& s, std::ostream* out) { *out << s.name; }

/// Every set this machine can run, and AVX-512 emulated on AVX2.
inline std::vector<NamedSet> sets() {
  std::vector<NamedSet> all;
  for (const KernelSet* set : compiled())
    if (supported(*set)) all.push_back({set->name, set});
#ifdef AWQ_EMULATED_AVX512
  if (cpu_features() & kAvx2) all.push_back({"avx512_emulated", &avx512_emulated});
#endif
  return all;
}

inline std::vector<NamedSet> sets_with_tiles() {
  std::vector<NamedSet> all = sets();
  std::erase_if(all, [](const NamedSet& s) { return !s->tiles_int; });
  return all;
}

class KernelTest : public testing::TestWithParam<NamedSet> {
 protected:
  const NamedSet& set() const { return GetParam(); }
};
#define AWQ_EVERY_SET(suite) \
  INSTANTIATE_TEST_SUITE_P(Sets, suite, testing::ValuesIn(sets()), [](const auto& one) { return one.param.name; })

/// There may be none on this machine.
#define AWQ_SETS_WITH_TILES(suite)                                            \
  GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(suite);                       \
  INSTANTIATE_TEST_SUITE_P(Sets, suite, testing::ValuesIn(sets_with_tiles()), \
                           [](const auto& one) { return one.param.name; })

/// n elements that end where unreadable memory begins: one element too far, read or written, ends the test. They are
/// aligned to their own size only.
template <class T>
class Guarded {
 public:
  explicit Guarded(size_t n, T fill = T()) : n_(n) {
    const size_t page = size_t(sysconf(_SC_PAGESIZE));
    bytes_ = (n * sizeof(T) + page - 1) / page * page + page;
    base_ = static_cast<char*>(mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base_ == MAP_FAILED || mprotect(base_ + bytes_ - page, page, PROT_NONE) != 0) throw std::bad_alloc();
    data_ = reinterpret_cast<T*>(base_ + bytes_ - page) - n;
    std::fill(begin(), end(), fill);
  }
  explicit Guarded(const std::vector<T>& v) : Guarded(v.size()) { std::copy(v.begin(), v.end(), begin()); }
  ~Guarded() { munmap(base_, bytes_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  T* data() const { return data_; }
  T* begin() const { return data_; }
  T* end() const { return data_ + n_; }
  size_t size() const { return n_; }
  T& operator[](size_t i) const { return data_[i]; }

 private:
  size_t n_, bytes_;
  char* base_;
  T* data_;
};

inline std::vector<float> normals(size_t n, unsigned seed, float sigma = 1) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> dist(0, sigma);
  std::vector<float> v(n);
  for (float& x : v) x = dist(rng);
  return v;
}

inline bool same_bits(float a, float b) { return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b); }

constexpr double kU = 0x1p-24;  // largest relative error of one rounding to float

}  // namespace awq::kernels
