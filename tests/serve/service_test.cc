#include "serve/service.h"

#include <gtest/gtest.h>

#include <latch>

#include "bench/random_model.h"

namespace awq {
namespace {

class ServiceTest : public testing::Test {
 protected:
  ServiceTest()
      : device_(2, "", Activations::int16, Tiles::never),
        checkpoint_(random_model({{"architectures", {"LlamaForCausalLM"}},
                                  {"hidden_size", 64},
                                  {"intermediate_size", 64},
                                  {"num_hidden_layers", 1},
                                  {"num_attention_heads", 2},
                                  {"num_key_value_heads", 1},
                                  {"vocab_size", 100},
                                  {"max_position_embeddings", 1024},
                                  {"rms_norm_eps", 1e-5},
                                  {"hidden_act", "silu"},
                                  {"tie_word_embeddings", false}},
                                 groups_of(32), {}, 1, device_.pool)),
        model_(load_model(*device_.backend, *checkpoint_)) {}

  Device device_;
  std::unique_ptr<Checkpoint> checkpoint_;
  Model model_;
};

// From several threads at once, while the engine works: every request that is not cancelled ends once, with all its
// tokens.
TEST_F(ServiceTest, ManyThreads) {
  constexpr int kThreads = 4, kEach = 12;
  std::atomic<int> ended = 0, tokens = 0, refused = 0;
  {
    Service service(device_, model_, {.sequences = 4, .kv_bytes = 1 << 18}, 1000);
    std::latch done(kThreads * kEach);
    std::vector<std::jthread> threads;
    for (int t = 0; t < kThreads; ++t)
      threads.emplace_back([&, t] {
        for (int i = 0; i < kEach; ++i) {
          const bool cancelled = i % 3 == 2;
          ServeRequest r{.prompt = std::vector<int32_t>(size_t(1 + 20 * i), t), .max_tokens = cancelled ? 500 : 5};
          if (!cancelled) {
            r.events.token = [&](const ServedToken&) { return ++tokens > 0; };
            r.events.end = [&](ServeEnd end, std::string_view) { ended += end == ServeEnd::length, done.count_down(); };
          }
          const auto id = service.submit(std::move(r));
          if (!id) ++refused, done.count_down();
          if (cancelled) service.cancel(*id), done.count_down();
          EXPECT_GE(service.counts().running, 0);
        }
      });
    done.wait();
    threads.clear();
    for (int i = 0; i < 1000 && !service.idle(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_TRUE(service.idle());
    service.drain();
    EXPECT_FALSE(service.submit({.prompt = {1}, .max_tokens = 1}));
  }
  EXPECT_EQ(refused, 0);
  EXPECT_EQ(ended, kThreads * kEach * 2 / 3);
  EXPECT_EQ(tokens, 5 * ended);
}

TEST_F(ServiceTest, AQueueHasAnEnd) {
  Service service(device_, model_, {.sequences = 1, .kv_bytes = 1 << 18}, 3);
  std::vector<uint64_t> ids;
  int refused = 0;
  for (int i = 0; i < 50; ++i) {
    const auto id = service.submit({.prompt = {1}, .max_tokens = 1000});
    id ? ids.push_back(*id) : void(++refused);
  }
  EXPECT_GT(refused, 40);
  for (uint64_t id : ids) service.cancel(id);
  for (int i = 0; i < 1000 && !service.idle(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_TRUE(service.idle());
  EXPECT_TRUE(service.submit({.prompt = {1}, .max_tokens = 1}));
}

TEST_F(ServiceTest, WhoGoesHearsNothingMore) {
  auto heard = std::make_shared<int>(0);
  {
    Service service(device_, model_, {.sequences = 1, .kv_bytes = 1 << 18}, 3);
    ServeRequest r{.prompt = {1}, .max_tokens = 1000};
    r.events.end = [heard](ServeEnd, std::string_view) { ++*heard; };
    service.submit(std::move(r));
  }
  EXPECT_EQ(*heard, 0);
  EXPECT_EQ(heard.use_count(), 1);  // nobody keeps what was asked
}

}  // namespace
}  // namespace awq
