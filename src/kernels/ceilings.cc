#include "kernels/ceilings.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <string_view>

#include "base/check.h"
#include "base/cpu.h"
#include "kernels/registry.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <sys/syscall.h>
#endif

namespace awq::kernels {
namespace {

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// `rounds` rounds of `operations` operations, about half a millisecond: long against a fork and a join, short against
/// a time slice.
struct Loop {
  std::string_view set;
  DType type;
  uint32_t needs;  // beside what the set needs
  double operations;
  int rounds;
  bool (*run)(int rounds);  // false where the system refuses
};

// Register to register, twelve independent chains: 4 cycles of latency times 2 units is 8. As text, because a compiler
// would simplify it. The factors are 0x3f803f80 everywhere, or 1.0: ordinary values in each type, where what a register
// happens to hold may be denormal and slow.
#define AWQ_TWELVE(M) M("0") M("1") M("2") M("3") M("4") M("5") M("6") M("7") M("8") M("9") M("10") M("11")
#if defined(__x86_64__)
#define AWQ_CLOBBERED                                                                                                 \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", \
      "xmm14", "xmm15"
#define AWQ_LOOP(name, M, width)                                                                          \
  bool name(int n) {                                                                                      \
    asm volatile("vzeroall\n vmovd %1, %%xmm15\n vpbroadcastd %%xmm15, %%" width                        \
                 "mm15\n vpbroadcastd %%xmm15, %%" width "mm14\n 1:\n" AWQ_TWELVE(M) "dec %0\n jnz 1b\n" \
                 "vzeroupper\n"                                                                         \
                 : "+r"(n)                                                                              \
                 : "r"(0x3f803f80)                                                                      \
                 : AWQ_CLOBBERED, "cc"); \
    return true;                                                                                          \
  }
#define AWQ_FMA_YMM(i) "vfmadd231ps %%ymm15, %%ymm14, %%ymm" i "\n"
#define AWQ_FMA_ZMM(i) "vfmadd231ps %%zmm15, %%zmm14, %%zmm" i "\n"
#define AWQ_MADD16_YMM(i) "vpmaddwd %%ymm15, %%ymm14, %%ymm13\n vpaddd %%ymm13, %%ymm" i ", %%ymm" i "\n"
#define AWQ_MADD8_YMM(i)                                                        \
  "vpmaddubsw %%ymm15, %%ymm14, %%ymm13\n vpmaddwd %%ymm15, %%ymm13, %%ymm13\n" \
  "vpaddd %%ymm13, %%ymm" i ", %%ymm" i "\n"
#define AWQ_DOT8_YMM(i) "%{vex%} vpdpbusd %%ymm15, %%ymm14, %%ymm" i "\n"
#define AWQ_DOT16_YMM(i) "%{vex%} vpdpwssd %%ymm15, %%ymm14, %%ymm" i "\n"
#define AWQ_DOT8_ZMM(i) "vpdpbusd %%zmm15, %%zmm14, %%zmm" i "\n"
#define AWQ_DOT16_ZMM(i) "vpdpwssd %%zmm15, %%zmm14, %%zmm" i "\n"
#define AWQ_DOTBF_ZMM(i) "vdpbf16ps %%zmm15, %%zmm14, %%zmm" i "\n"
AWQ_LOOP(fma_ymm, AWQ_FMA_YMM, "y")
AWQ_LOOP(fma_zmm, AWQ_FMA_ZMM, "z")
AWQ_LOOP(madd16_ymm, AWQ_MADD16_YMM, "y")
AWQ_LOOP(madd8_ymm, AWQ_MADD8_YMM, "y")
AWQ_LOOP(dot8_ymm, AWQ_DOT8_YMM, "y")
AWQ_LOOP(dot16_ymm, AWQ_DOT16_YMM, "y")
AWQ_LOOP(dot8_zmm, AWQ_DOT8_ZMM, "z")
AWQ_LOOP(dot16_zmm, AWQ_DOT16_ZMM, "z")
AWQ_LOOP(dotbf_zmm, AWQ_DOTBF_ZMM, "z")

struct TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t column_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Linux gives tile registers to a process that asks: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA).
bool may_use_tiles() { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }

// Four independent chains of 16 rows x 64 bytes: what register tiles of 2 x 2 do.
#define AWQ_TILE_LOOP(name, instruction)                                                         \
  bool name(int n) {                                                                             \
    if (!may_use_tiles()) return false;                                                          \
    const TileConfig config;                                                                     \
    asm volatile("ldtilecfg %1\n 1:\n" instruction " %%tmm6, %%tmm4, %%tmm0\n" instruction       \
                 " %%tmm7, %%tmm4, %%tmm1\n" instruction " %%tmm6, %%tmm5, %%tmm2\n" instruction \
                 " %%tmm7, %%tmm5, %%tmm3\n dec %0\n jnz 1b\n tilerelease\n"                     \
                 : "+r"(n)                                                                       \
                 : "m"(config)                                                                   \
                 : "cc");                                                                        \
    return true;                                                                                 \
  }
AWQ_TILE_LOOP(tile_i8, "tdpbsud")
AWQ_TILE_LOOP(tile_bf16, "tdpbf16ps")

constexpr int kRounds = 200000, kTileRounds = 20000;
constexpr double kTile = 4 * 2 * 16 * 16;  // operations a round for each column of the factors
constexpr Loop kLoops[] = {
    {"avx2", DType::f32, 0, 12 * 16, kRounds, fma_ymm},
    {"avx2", DType::i16, 0, 12 * 32, kRounds, madd16_ymm},
    {"avx2", DType::i8, 0, 12 * 64, kRounds, madd8_ymm},
    {"avxvnni", DType::f32, 0, 12 * 16, kRounds, fma_ymm},
    {"avxvnni", DType::i16, 0, 12 * 32, kRounds, dot16_ymm},
    {"avxvnni", DType::i8, 0, 12 * 64, kRounds, dot8_ymm},
    {"avx512", DType::f32, 0, 12 * 32, kRounds, fma_zmm},
    {"avx512", DType::bf16, kAvx512Bf16, 12 * 64, kRounds, dotbf_zmm},
    {"avx512", DType::i16, 0, 12 * 64, kRounds, dot16_zmm},
    {"avx512", DType::i8, 0, 12 * 128, kRounds, dot8_zmm},
    {"amx", DType::f32, 0, 12 * 32, kRounds, fma_zmm},
    {"amx", DType::bf16, 0, kTile * 32, kTileRounds, tile_bf16},
    {"amx", DType::i16, 0, 12 * 64, kRounds, dot16_zmm},
    {"amx", DType::i8, 0, kTile * 64, kTileRounds, tile_i8},
};

// Eight streams, each prefetched 1 kB ahead: on Emerald Rapids 36 GB/s on two threads, where four read 33; 14 on one,
// either way. Wider registers change nothing.
constexpr size_t kStreams = 8;
__attribute__((target("avx2"))) bool read_ymm(const std::byte* begin, size_t part) {
  __m256i sum[4] = {};
  for (size_t i = 0; i < part; i += 128)
    for (size_t stream = 0; stream < kStreams; ++stream) {
      const std::byte* p = begin + stream * part + i;
      _mm_prefetch(reinterpret_cast<const char*>(p) + 1024, _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(p) + 1088, _MM_HINT_T0);
      for (size_t j = 0; j < 4; ++j)
        sum[j] = _mm256_xor_si256(sum[j], _mm256_load_si256(reinterpret_cast<const __m256i*>(p) + j));
    }
  const __m256i all = _mm256_xor_si256(_mm256_xor_si256(sum[0], sum[1]), _mm256_xor_si256(sum[2], sum[3]));
  return _mm256_testz_si256(all, all);
}
#elif defined(__aarch64__)
#define AWQ_ZERO(i) "movi v" i ".2d, #0\n"
#define AWQ_LOOP(name, M)                                                                                         \
  bool name(int n) {                                                                                              \
    asm volatile(".arch armv8.2-a+dotprod+i8mm\n fmov v30.4s, #1.0\n fmov v31.4s, #1.0\n" AWQ_TWELVE(             \
                     AWQ_ZERO) "1:\n" AWQ_TWELVE(M) "subs %w0, %w0, #1\n b.ne 1b\n"                               \
                 : "+r"(n)                                                                                        \
                 :                                                                                                \
                 : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v28", "v29", "v30", \
                   "v31", "cc");                                                                                  \
    return true;                                                                                                  \
  }
#define AWQ_FMLA(i) "fmla v" i ".4s, v30.4s, v31.4s\n"
#define AWQ_SDOT(i) "sdot v" i ".4s, v30.16b, v31.16b\n"
#define AWQ_SMMLA(i) "smmla v" i ".4s, v30.16b, v31.16b\n"
#define AWQ_SMULL(i)                                               \
  "smull v28.4s, v30.4h, v31.4h\n smull2 v29.4s, v30.8h, v31.8h\n" \
  "addp v28.4s, v28.4s, v29.4s\n add v" i ".4s, v" i ".4s, v28.4s\n"
AWQ_LOOP(fmla, AWQ_FMLA)
AWQ_LOOP(smull, AWQ_SMULL)
AWQ_LOOP(sdot, AWQ_SDOT)
AWQ_LOOP(smmla, AWQ_SMMLA)

constexpr int kRounds = 200000;
constexpr Loop kLoops[] = {
    {"neon", DType::f32, 0, 12 * 8, kRounds, fmla},        {"neon", DType::i16, 0, 12 * 16, kRounds, smull},
    {"neon", DType::i8, 0, 12 * 32, kRounds, sdot},        {"neon_i8mm", DType::f32, 0, 12 * 8, kRounds, fmla},
    {"neon_i8mm", DType::i16, 0, 12 * 16, kRounds, smull}, {"neon_i8mm", DType::i8, 0, 12 * 64, kRounds, smmla},
};
#else
constexpr Loop kLoops[] = {{"", DType::f32, 0, 0, 0, nullptr}};
#endif

bool read_plain(const std::byte* begin, size_t bytes) {
  uint64_t sum = 0;
  for (const auto *p = reinterpret_cast<const uint64_t*>(begin), *end = p + bytes / 8; p < end; ++p) sum ^= *p;
  return sum == 0;
}

bool read(const std::byte* p, size_t bytes) {
#if defined(__x86_64__)
  if (cpu_features() & kAvx2) return read_ymm(p, bytes / kStreams);
#endif
  return read_plain(p, bytes);
}

constexpr size_t kPage = size_t(2) << 20;  // a huge page: what a thread's part is a multiple of

size_t default_bytes() {
#if defined(_SC_LEVEL3_CACHE_SIZE)
  return std::max(size_t(1) << 30, 2 * size_t(std::max(0L, sysconf(_SC_LEVEL3_CACHE_SIZE))));
#else
  return size_t(1) << 30;
#endif
}

}  // namespace

std::optional<double> peak_rate(ThreadPool& pool, const KernelSet& set, DType type) {
  const auto* loop = std::find_if(std::begin(kLoops), std::end(kLoops),
                                  [&](const Loop& l) { return l.set == set.name && l.type == type; });
  if (loop == std::end(kLoops) || (loop->needs & ~cpu_features()) || !supported(set) || !loop->run(1)) return {};
  double best = 1e30;
  for (int i = 0; i < 100; ++i)
    best = std::min(best,
                    seconds_of([&] { pool.run(pool.size(), 1, [&](int64_t, int64_t) { loop->run(loop->rounds); }); }));
  return 1e-9 * pool.size() * loop->operations * loop->rounds / best;
}

ReadBandwidth::ReadBandwidth(ThreadPool& pool, size_t bytes) : pool_(pool) {
  const size_t share = kPage * size_t(pool.size());  // every thread reads as much
  bytes_ = ((bytes ? bytes : default_bytes()) - 1) / share * share + share;
  void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    fail("bench", "{:.1f} GB to measure the read bandwidth with are not to be had; close other programs",
         1e-9 * double(bytes_));
  memory_ = static_cast<std::byte*>(memory);
  madvise(memory_, bytes_, MADV_HUGEPAGE);
  pool_.run(int64_t(bytes_ / kPage), 1,
            [this](int64_t b, int64_t e) { std::memset(memory_ + size_t(b) * kPage, 1, size_t(e - b) * kPage); });
}

ReadBandwidth::~ReadBandwidth() { munmap(memory_, bytes_); }

void ReadBandwidth::pass() {
  std::atomic<bool> zero{false};
  const double seconds = seconds_of([&] {
    pool_.run(int64_t(bytes_ / kPage), 1, [&](int64_t b, int64_t e) {
      if (read(memory_ + size_t(b) * kPage, size_t(e - b) * kPage)) zero = true;
    });
  });
  rates_.push_back(1e-9 * double(bytes_) / seconds);
}

double ReadBandwidth::best() const { return *std::max_element(rates_.begin(), rates_.end()); }

double ReadBandwidth::median() const {
  std::vector<double> r = rates_;
  std::nth_element(r.begin(), r.begin() + long(r.size() / 2), r.end());
  return r[r.size() / 2];
}

}  // namespace awq::kernels
