// The executor itself: that it computes what the instructions are documented to, and that it shows what is wrong.
#include "cuda/executor.h"

#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <set>
#include <vector>

namespace awq::cuda {
namespace {

void run(int blocks, int threads, int shared, const std::function<void()>& body) {
  executor::run(
      blocks, threads, shared, [](const void* f) { (*static_cast<const std::function<void()>*>(f))(); }, &body);
}

class Executor : public testing::Test {
 protected:
  void TearDown() override { executor::set_seed(0); }
};

TEST_F(Executor, EveryThreadRunsOnceWhateverTheOrder) {
  for (uint64_t seed : {0, 1, 2, 3}) {
    executor::set_seed(seed);
    std::vector<int> runs(5 * 96);
    run(5, 96, 0, [&] { ++runs[size_t(block() * threads() + thread())]; });
    for (int n : runs) EXPECT_EQ(n, 1);
  }
}

TEST_F(Executor, SeedsPermuteBlocksAndThreads) {
  std::set<std::vector<int>> orders;
  for (uint64_t seed : {1, 2, 3, 4}) {
    executor::set_seed(seed);
    std::vector<int> order;
    run(3, 64, 0, [&] { order.push_back(block() * threads() + thread()); });
    orders.insert(order);
  }
  EXPECT_EQ(orders.size(), 4u);
}

// Sums over a block by a tree; without the barriers some order must give another sum.
int tree_sum(bool barriers) {
  int sum = 0;
  run(1, 128, 128 * 4, [&] {
    auto* s = reinterpret_cast<int*>(shared_memory());
    s[thread()] = thread();
    sync_block();
    for (int m = 64; m > 0; m /= 2) {
      if (thread() < m) s[thread()] += s[thread() + m];
      if (barriers) sync_block();
    }
    if (thread() == 0) sum = s[0];
  });
  return sum;
}
TEST_F(Executor, AMissingBarrierShows) {
  int wrong = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    executor::set_seed(seed);
    EXPECT_EQ(tree_sum(true), 127 * 64);
    wrong += tree_sum(false) != 127 * 64;
  }
  EXPECT_GT(wrong, 10);
}

TEST_F(Executor, ShufflesExchangeLanes) {
  for (uint64_t seed : {0, 5}) {
    executor::set_seed(seed);
    run(1, 64, 0, [] {
      for (int m : {1, 2, 4, 8, 16}) EXPECT_EQ(shuffle_xor(thread(), m), thread() ^ m);
      EXPECT_EQ(shuffle_xor(float(thread()), 3), float(thread() ^ 3));
    });
  }
}

// PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type": row and column of each element, written
// out here from its formulas and not from the executor's.
template <class T>
void check_mma(uint16_t (*round)(float)) {
  std::mt19937 rng(3);
  std::vector<float> a(16 * 16), b(16 * 8), c(16 * 8);
  for (auto* m : {&a, &b, &c})
    for (float& v : *m) v = float(int(rng() % 33) - 16) / 4;  // sums of these are exact
  run(1, 32, 0, [&] {
    const int group = thread() >> 2, in_group = thread() & 3;
    uint32_t ra[4] = {}, rb[2] = {};
    float d[4];
    for (int i = 0; i < 8; ++i) {
      const int row = i < 2 || (i >= 4 && i < 6) ? group : group + 8, col = in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0);
      ra[i / 2] |= uint32_t(round(a[size_t(row * 16 + col)])) << (16 * (i % 2));
    }
    for (int i = 0; i < 4; ++i) {
      const int row = in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0);
      rb[i / 2] |= uint32_t(round(b[size_t(row * 8 + group)])) << (16 * (i % 2));
    }
    const auto at = [&](int i) { return size_t((i < 2 ? group : group + 8) * 8 + in_group * 2 + (i & 1)); };
    for (int i = 0; i < 4; ++i) d[i] = c[at(i)];
    T::mma(d, ra, rb[0], rb[1]);
    for (int i = 0; i < 4; ++i) {
      float want = c[at(i)];
      for (size_t k = 0; k < 16; ++k) want += a[at(i) / 8 * 16 + k] * b[k * 8 + at(i) % 8];
      EXPECT_EQ(d[i], want);
    }
  });
}
TEST_F(Executor, MmaIsTheProduct) {
  check_mma<F16>(f32_to_f16);
  check_mma<Bf16>(f32_to_bf16);
}

// Read before it is waited for, a late copy's bytes are not there yet; waited for, they are, whichever it is.
TEST_F(Executor, CopiesAreThereWhenTheyWereWaitedFor) {
  alignas(16) float from[4] = {1, 2, 3, 4};
  for (uint64_t seed : {0, 1}) {
    executor::set_seed(seed);
    run(1, 32, 32 * 16, [&] {
      float* to = reinterpret_cast<float*>(shared_memory()) + 4 * thread();
      copy_async(to, from, thread() != 7);
      commit_copies();
      EXPECT_EQ(std::isnan(to[0]), seed == 1);
      wait_copies<0>();
      EXPECT_EQ(to[3], thread() == 7 ? 0.f : 4.f);
    });
  }
}

TEST_F(Executor, WaitsForAllGroupsButTheLatest) {
  alignas(16) float from[4] = {1, 1, 1, 1};
  executor::set_seed(1);
  run(1, 32, 32 * 32, [&] {
    float* to = reinterpret_cast<float*>(shared_memory()) + 8 * thread();
    for (int i : {0, 1}) {
      copy_async(to + 4 * i, from, true);
      commit_copies();
    }
    wait_copies<1>();
    EXPECT_EQ(to[0], 1);
    EXPECT_TRUE(std::isnan(to[4]));
    wait_copies<0>();
  });
}

TEST_F(Executor, PairsRoundOnce) {
  const uint32_t v = F16::pack(1.f, -2.f);
  EXPECT_EQ(F16::low(v), 1.f);
  EXPECT_EQ(F16::low(v >> 16), -2.f);
  EXPECT_EQ(F16::subtract(0x64006405u, 0x64006400u), F16::pack(5, 0));
  EXPECT_EQ(Bf16::fused2(Bf16::pack(15, 3), Bf16::pack(16, 16), Bf16::pack(15, 1)), Bf16::pack(255, 49));
}

using ExecutorDeathTest = Executor;
TEST_F(ExecutorDeathTest, RefusesWhatAGpuWouldHangOn) {
  EXPECT_DEATH(run(1, 64, 0,
                   [] {
                     if (thread() < 32) sync_block();
                   }),
               "wait at a barrier");
  EXPECT_DEATH(run(1, 32, 0,
                   [] {
                     if (thread() < 31) shuffle_xor(1, 1);
                   }),
               "never comes");
  EXPECT_DEATH(run(1, 32, 64, [] { copy_async(shared_memory() + 4, shared_memory(), true); }), "not aligned");
  EXPECT_DEATH(run(1, 32, 512,
                   [] {
                     copy_async(shared_memory() + 16 * thread(), shared_memory(), false);
                     commit_copies();
                   }),
               "did not wait for");
}

}  // namespace
}  // namespace awq::cuda
