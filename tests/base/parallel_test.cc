#include "base/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <numeric>
#include <set>
#include <thread>
#include <vector>

#include "awq/error.h"

namespace awq {
namespace {

struct Ranges {
  std::mutex mutex;
  std::vector<std::pair<int64_t, int64_t>> seen;
  std::set<std::thread::id> threads;
  void add(int64_t b, int64_t e) {
    const std::lock_guard lock(mutex);
    seen.emplace_back(b, e);
    threads.insert(std::this_thread::get_id());
  }
};

TEST(ThreadPool, RangesCoverOnceAndAreMultiplesOfGrain) {
  for (const int threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads);
    ASSERT_EQ(pool.size(), threads);
    for (const int64_t n : {1, 2, 5, 16, 17, 1000})
      for (const int64_t grain : {1, 4, 16, 5000}) {
        Ranges r;
        pool.run(n, grain, [&](int64_t b, int64_t e) { r.add(b, e); });
        EXPECT_EQ(r.seen.size(), size_t(std::min<int64_t>(threads, (n + grain - 1) / grain)));
        EXPECT_EQ(r.threads.size(), r.seen.size());
        std::sort(r.seen.begin(), r.seen.end());
        int64_t at = 0;
        for (const auto& [b, e] : r.seen) {
          EXPECT_EQ(b, at);
          EXPECT_LT(b, e);
          EXPECT_LE((e - b + grain - 1) / grain, (n + grain - 1) / grain / int64_t(r.seen.size()) + 1)
              << "unequal parts";
          if (e != n) {
            EXPECT_EQ((e - b) % grain, 0);
          }
          at = e;
        }
        EXPECT_EQ(at, n);
      }
  }
}

TEST(ThreadPool, NothingToDo) {
  ThreadPool pool(2);
  pool.run(0, 1, [](int64_t, int64_t) { FAIL(); });
  pool.run(-3, 1, [](int64_t, int64_t) { FAIL(); });
  pool.each(0, [](int64_t) { FAIL(); });
}

TEST(ThreadPool, EachVisitsEveryIndexOnce) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    std::vector<std::atomic<int>> count(999);
    pool.each(999, [&](int64_t i) { ++count[size_t(i)]; });
    for (const auto& c : count) EXPECT_EQ(c, 1);
  }
}

TEST(ThreadPool, WritesAreVisibleAfterEveryJoin) {
  ThreadPool pool(3);
  std::vector<int64_t> v(300, 0);
  for (int round = 0; round < 3000; ++round) {
    pool.run(int64_t(v.size()), 1, [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) ++v[size_t(i)];
    });
    ASSERT_EQ(std::accumulate(v.begin(), v.end(), int64_t{0}), 300 * (round + 1));
  }
}

TEST(ThreadPool, WakesFromSleep) {
  ThreadPool pool(2);
  for (int i = 0; i < 5; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(3));  // far beyond the spin
    std::atomic<int64_t> sum{0};
    pool.run(10, 1, [&](int64_t b, int64_t e) {
      if (b != 0) std::this_thread::sleep_for(std::chrono::milliseconds(3));  // so that the caller sleeps too
      sum += e - b;
    });
    EXPECT_EQ(sum, 10);
  }
}

TEST(ThreadPool, FirstExceptionByRange) {
  ThreadPool pool(4);
  std::atomic<int> ran{0};
  try {
    pool.run(4, 1, [&](int64_t b, int64_t) {
      ++ran;
      if (b != 2)
        std::this_thread::sleep_for(std::chrono::milliseconds(b == 1 ? 5 : 15));  // thrown in the order 2, 1, 3
      if (b >= 1) throw Error("range " + std::to_string(b));
    });
    FAIL() << "nothing was thrown";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "range 1");
  }
  EXPECT_EQ(ran, 4);
  EXPECT_THROW(pool.run(1, 1, [](int64_t, int64_t) { throw Error("alone"); }), Error);
}

TEST(ThreadPool, FirstExceptionByIndex) {
  ThreadPool pool(3);
  for (int round = 0; round < 50; ++round) {
    std::vector<std::atomic<int>> ran(100);
    try {
      pool.each(100, [&](int64_t i) {
        EXPECT_EQ(++ran[size_t(i)], 1);
        if (i == 7) std::this_thread::sleep_for(std::chrono::microseconds(300));
        if (i == 7 || i == 20) throw Error(std::to_string(i));
      });
      FAIL() << "nothing was thrown";
    } catch (const Error& e) {
      EXPECT_STREQ(e.what(), "7");
    }
  }
}

TEST(ThreadPool, NestedCallsRunInline) {
  ThreadPool pool(3);
  std::atomic<int64_t> sum{0};
  pool.run(3, 1, [&](int64_t, int64_t) {
    const auto me = std::this_thread::get_id();
    pool.run(10, 1, [&](int64_t b, int64_t e) {
      EXPECT_EQ(std::this_thread::get_id(), me);
      sum += e - b;
    });
    pool.each(10, [&](int64_t) {
      EXPECT_EQ(std::this_thread::get_id(), me);
      ++sum;
    });
  });
  EXPECT_EQ(sum, 60);
}

TEST(ThreadPool, CallersTakeTurns) {
  ThreadPool pool(2);
  std::vector<int64_t> sums(4, 0);
  std::vector<std::thread> callers;
  for (auto& sum : sums)
    callers.emplace_back([&pool, &sum] {
      std::vector<int64_t> v(64, 0);
      for (int round = 0; round < 200; ++round)
        pool.run(64, 1, [&](int64_t b, int64_t e) {
          for (int64_t i = b; i < e; ++i) ++v[size_t(i)];
        });
      sum = std::accumulate(v.begin(), v.end(), int64_t{0});
    });
  for (auto& t : callers) t.join();
  EXPECT_EQ(sums, std::vector<int64_t>(4, 64 * 200));
}

TEST(ThreadPool, RefusesNonsense) {
  EXPECT_THROW(ThreadPool(-1), Error);
  EXPECT_THROW(ThreadPool(1 << 20), Error);
  EXPECT_GE(ThreadPool(0).size(), 1);
}

TEST(TaskThread, RunsAllInTheirOrderBeforeItEnds) {
  std::vector<int> order;
  {
    TaskThread thread;
    for (int i = 0; i < 100; ++i) thread.add([&order, i] { order.push_back(i); });
  }
  std::vector<int> expected(100);
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(order, expected);
}

}  // namespace
}  // namespace awq
