// Steps that the device has recorded: other positions and tokens than those of the recording give what the same calls
// give one by one, and no call of a step waits for the device but the last.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <utility>

#include "bench/models.h"
#include "cuda/executor_device.h"
#include "engine/golden_fixture.h"
#include "engine/sampler.h"
#include "formats/load.h"
#include "model/cuda_backend.h"

namespace awq {
namespace {

using cuda::executor::counts;

constexpr DType kStepCache = DType::f16;

class Steps : public testing::Test {
 protected:
  void SetUp() override { counts = {}; }
  /// What was called is counted by the executor alone.
  void expect_replays(int n) const {
    if (counted_) {
      EXPECT_EQ(counts.replays, n);
    }
  }
  void load(const nlohmann::json& config) {
    checkpoint_ = random_model(config, groups_of(32), {}, 5, pool_);
    model_ = load_model(*gpu_, *checkpoint_);
  }
  int32_t token() { return int32_t(rng_() % unsigned(model_.spec.vocab)); }
  std::vector<int32_t> tokens(int n) {
    std::vector<int32_t> ids;
    for (int i = 0; i < n; ++i) ids.push_back(token());
    return ids;
  }
  /// Two caches with the same prompt in them: one for steps that are replayed, and one for calls.
  struct Twice {
    std::unique_ptr<KvCache> replayed, called;
    int length;
  };
  Twice begin(int prompt) {
    const std::vector<int32_t> ids = tokens(prompt);
    auto kv = gpu_->kv_cache(model_.spec.blocks, kStepCache);
    prefill(*gpu_, model_, *kv, 0, ids);
    auto copy = kv->clone();
    return {std::move(kv), std::move(copy), prompt};
  }
  /// The next token of some sequences, both ways.
  void expect_same_step(std::span<Twice> all) {
    std::vector<Sequence> a, b;
    for (Twice& t : all) {
      a.push_back({t.replayed.get(), t.length, 1}), b.push_back({t.called.get(), t.length, 1});
      ++t.length;
    }
    const std::vector<int32_t> ids = tokens(int(all.size()));
    const Tensor got = step_logits(*gpu_, model_, ids, a);
    const Tensor want = head_logits(*gpu_, model_, hidden_forward(*gpu_, model_, ids, b));
    ASSERT_TRUE(same_bytes(got, want)) << "at " << all[0].length;
  }

  ThreadPool pool_{2};
  std::mt19937 rng_{7};
  std::unique_ptr<Backend> gpu_ = cuda_backend(pool_, cuda::executor_device());
  const bool counted_ = gpu_->kernels() == "executor";
  std::unique_ptr<Checkpoint> checkpoint_;
  Model model_;
};

// Over the end of a page, which adds units, and of the room that the recording had for them.
TEST_F(Steps, AReplayGivesWhatTheCallsGive) {
  nlohmann::json config = tiny_config(2);
  config["max_position_embeddings"] = 2048;
  load(config);
  std::vector<Twice> one;
  one.push_back(begin(253));
  for (int i = 0; i < 8; ++i) expect_same_step(one);
  expect_replays(7);  // the first is not recorded
  // Another sequence, far behind: 2 heads x 9 pages are more than 16 units.
  std::vector<Twice> other;
  other.push_back(begin(1));
  other[0].length = 0;
  for (int i = 0; i < 3; ++i) expect_same_step(other);
  expect_replays(10);
}

TEST_F(Steps, SequencesOfDifferentLengthsShareOne) {
  nlohmann::json config = tiny_config(2);
  config["sliding_window"] = 20, config["architectures"] = {"MistralForCausalLM"};
  load(config);
  std::vector<Twice> some;
  for (const int prompt : {3, 40, 255}) some.push_back(begin(prompt));
  for (int i = 0; i < 5; ++i) expect_same_step(some);
  some.pop_back();
  for (int i = 0; i < 3; ++i) expect_same_step(some);
  expect_replays(4 + 2);
}

// What a recording works in is nobody else's: other work changes nothing in a replay, and a replay nothing of others.
TEST_F(Steps, MemoryOfARecordingIsHeld) {
  load(tiny_config(2));
  std::vector<Twice> one, between;
  one.push_back(begin(9));
  between.push_back(begin(30));
  for (int i = 0; i < 3; ++i) expect_same_step(one);
  const std::vector<int32_t> ids = tokens(24);
  const auto kv = gpu_->kv_cache(model_.spec.blocks, kStepCache);
  prefill(*gpu_, model_, *kv, 0, ids);
  std::vector<Tensor> taken;
  for (int64_t n = 1; n < 200000; n += n / 4 + 7) taken.push_back(gpu_->empty({n}));
  for (Tensor& t : taken) gpu_->zero(t);
  for (int i = 0; i < 3; ++i) expect_same_step(one);
  for (const Tensor& t : taken) {
    const Tensor host = gpu_->host(t);
    const auto zero = [](float v) { return v == 0; };
    ASSERT_TRUE(std::ranges::all_of(std::as_const(host).as<float>(), zero)) << t.shape().text();
  }
}

// One upload for tables, one for the token's row, one replay, and eight bytes back.
TEST_F(Steps, OnlyTheTokenComesBack) {
  load(tiny_config(2));
  const auto kv = gpu_->kv_cache(model_.spec.blocks, kStepCache);
  prefill(*gpu_, model_, *kv, 0, tokens(5));
  const auto step = [&](int at) {
    const Sequence s{kv.get(), at, 1};
    const int32_t id = token();
    return step_top(*gpu_, model_, {&id, 1}, {&s, 1}, 1);
  };
  if (!counted_) GTEST_SKIP() << "what was called is counted by the executor alone";
  step(5), step(6);
  counts = {};
  step(7);
  expect_replays(1);
  EXPECT_EQ(counts.uploads, 2);
  EXPECT_EQ(counts.downloaded, 8);
  EXPECT_EQ(counts.started, 1);  // x to where the recording reads it
}

// What is started for one token. A block: norm; prepare, q with k and v; heads; attention; prepare, o; sum and norm;
// prepare, gate with up; activation and prepare, down; sum. Behind them the last norm, the head's two, and the largest
// by two.
TEST_F(Steps, ABlockIsThirteenKernels) {
  if (!counted_) GTEST_SKIP() << "what was called is counted by the executor alone";
  load(tiny_config(2));
  const auto kv = gpu_->kv_cache(model_.spec.blocks, kStepCache);
  for (int at = 0; at < 2; ++at) {
    const Sequence s{kv.get(), at, 1};
    const int32_t id = token();
    step_top(*gpu_, model_, {&id, 1}, {&s, 1}, 1);
  }
  EXPECT_EQ(counts.recorded, 2 * 13 + 1 + 2 + 2);
}

// The largest logits on the device are those of the host's, and a sampler picks alike among them.
TEST_F(Steps, TheDevicesLargestAreTheHosts) {
  load(tiny_config(1));
  std::vector<Twice> two;
  for (const int prompt : {4, 9}) two.push_back(begin(prompt));
  for (const int count : {1, 5, 64})
    for (int i = 0; i < 3; ++i) {
      std::vector<Sequence> a, b;
      for (Twice& t : two) {
        a.push_back({t.replayed.get(), t.length, 1}), b.push_back({t.called.get(), t.length, 1});
        ++t.length;
      }
      const std::vector<int32_t> ids = tokens(2);
      const TopLogits top = step_top(*gpu_, model_, ids, a, count);
      Tensor logits = head_logits(*gpu_, model_, hidden_forward(*gpu_, model_, ids, b));
      ASSERT_EQ(top.tokens.size(), size_t(2 * count));
      for (int64_t r = 0; r < 2; ++r) {
        const auto row = logits.rows(r, r + 1);
        for (int n = 0; n < count; ++n) {
          const auto best = likeliest(std::as_const(row).as<float>());
          ASSERT_EQ(top.tokens[size_t(r * count + n)], best);
          float& v = Tensor(row).as<float>()[size_t(best)];
          ASSERT_EQ(top.logits[size_t(r * count + n)], v);
          v = -INFINITY;
        }
      }
    }
}

TEST_F(Steps, ModelsThatDecideOnTheHostAreNotRecorded) {
  const auto moe = Checkpoint::open(golden::folder("mixtral"));
  model_ = load_model(*gpu_, *moe);
  std::vector<Twice> one;
  one.push_back(begin(3));
  for (int i = 0; i < 3; ++i) expect_same_step(one);
  expect_replays(0);
}

}  // namespace
}  // namespace awq
