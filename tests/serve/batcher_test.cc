#include "serve/batcher.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "bench/random_model.h"

namespace awq {
namespace {

nlohmann::json serve_config() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"hidden_size", 64},
          {"intermediate_size", 128},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"vocab_size", 300},
          {"max_position_embeddings", 2048},
          {"rms_norm_eps", 1e-5},
          {"hidden_act", "silu"},
          {"tie_word_embeddings", false}};
}

/// What a request was told.
struct Told {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs, prompt;
  std::vector<std::vector<std::pair<int32_t, float>>> top;
  std::vector<float> embedding;
  std::vector<ServeEnd> ends;
  std::string why;
  bool operator==(const Told&) const = default;
};

class BatcherTest : public testing::Test {
 protected:
  BatcherTest()
      : device_(2, "", Activations::int16, Tiles::never),
        checkpoint_(random_model(serve_config(), groups_of(32), {}, 1, device_.pool)),
        model_(load_model(*device_.backend, *checkpoint_)) {}

  std::vector<int32_t> prompt(int n, unsigned seed) {
    std::mt19937 random(seed);
    std::vector<int32_t> tokens;
    for (int i = 0; i < n; ++i) tokens.push_back(int32_t(random() % 300));
    return tokens;
  }
  int64_t page_bytes() const { return device_.backend->kv_cache(model_.spec.blocks, kCacheType)->bytes_for(1); }
  Batcher::Limits room_for(int64_t pages) const { return {.kv_bytes = pages * page_bytes()}; }
  Batcher batcher(const Batcher::Limits& limits) { return {device_, model_, limits}; }

  static ServeRequest hears(ServeRequest r, Told& told) {
    r.events.prompt_token = [&told](const ServedToken& t) { told.prompt.push_back(t.logprob); };
    r.events.token = [&told](const ServedToken& t) {
      told.tokens.push_back(t.token);
      told.logprobs.push_back(t.logprob);
      told.top.push_back(t.top);
      return true;
    };
    r.events.embedding = [&told](std::span<const float> mean) { told.embedding.assign(mean.begin(), mean.end()); };
    r.events.end = [&told](ServeEnd end, std::string_view why) {
      told.ends.push_back(end);
      told.why = why;
    };
    return r;
  }
  Told alone(const ServeRequest& request) {
    Batcher b = batcher(room_for(64));
    Told told;
    b.add(0, hears(request, told));
    while (!b.idle()) b.step();
    return told;
  }

  Device device_;
  std::unique_ptr<Checkpoint> checkpoint_;
  Model model_;
};

/// Delta nets and attention.
nlohmann::json recurrent_config() {
  nlohmann::json c = serve_config();
  c.update({{"architectures", {"Qwen3_5ForCausalLM"}},
            {"full_attention_interval", 2},
            {"linear_num_key_heads", 2},
            {"linear_num_value_heads", 4},
            {"linear_key_head_dim", 16},
            {"linear_value_head_dim", 32},
            {"linear_conv_kernel_dim", 4}});
  return c;
}

class RecurrentBatcherTest : public BatcherTest {
 protected:
  RecurrentBatcherTest() {
    checkpoint_ = random_model(recurrent_config(), groups_of(32), {}, 1, device_.pool);
    model_ = load_model(*device_.backend, *checkpoint_);
  }
};

// A state is of all that was before: no page of a beginning can be shared, and memory holds states beside pages.
TEST_F(RecurrentBatcherTest, StatesAreTheRequestsOwn) {
  const auto kv = device_.backend->kv_cache(model_.spec.blocks, kCacheType);
  const int64_t page = kv->bytes_for(2 * kv->page_positions()) - kv->bytes_for(1), states = kv->bytes_for(1) - page,
                state_pages = (states + page - 1) / page;
  ASSERT_GT(states, 0);
  const Batcher::Limits limits{.sequences = 3, .kv_bytes = (2 * state_pages + 5) * page, .step_tokens = 100};
  EXPECT_EQ(batcher(limits).longest(), (state_pages + 5) * kv->page_positions());
  EXPECT_THROW(batcher({.kv_bytes = state_pages * page}), Error);

  const std::vector<int32_t> common = prompt(600, 99);
  std::vector<ServeRequest> requests;
  for (unsigned i = 0; i < 6; ++i) {
    requests.push_back({.prompt = prompt(20, i), .max_tokens = 30, .top_logprobs = 2});
    requests.back().prompt.insert(requests.back().prompt.begin(), common.begin(), common.begin() + 300 + int(i) * 50);
  }
  std::vector<Told> want, told(requests.size());
  for (const ServeRequest& r : requests) {
    Batcher b = batcher({.kv_bytes = int64_t(1) << 26});
    b.add(0, hears(r, want.emplace_back()));
    while (!b.idle()) b.step();
  }
  Batcher b = batcher(limits);
  for (size_t i = 0; i < requests.size(); ++i) b.add(i, hears(requests[i], told[i]));
  while (!b.idle()) {
    b.step();
    ASSERT_LE(b.counts().kv_used, 1);
  }
  EXPECT_EQ(told, want);
  EXPECT_GT(b.counts().preemptions, 0);
  EXPECT_EQ(b.counts().cached_tokens, 0);
}

TEST_F(BatcherTest, ARequestAloneIsPrefillAndDecoding) {
  const std::vector<int32_t> p = prompt(300, 1);
  const Told told = alone({.prompt = p, .max_tokens = 20, .top_logprobs = 2});
  Backend& dev = *device_.backend;
  const auto kv = dev.kv_cache(model_.spec.blocks, kCacheType);
  Tensor logits = prefill(dev, model_, *kv, 0, p);
  for (size_t i = 0; i < 20; ++i) {
    const auto l = logits.as<float>();
    const auto best = int32_t(std::ranges::max_element(l) - l.begin());
    ASSERT_EQ(told.tokens[i], best) << i;
    double sum = 0;
    for (float v : l) sum += std::exp(double(v) - double(l[size_t(best)]));
    EXPECT_NEAR(told.logprobs[i], -std::log(sum), 1e-6);
    EXPECT_EQ(told.top[i].size(), 2u);
    EXPECT_EQ(told.top[i].front(), std::pair(best, told.logprobs[i]));
    EXPECT_LE(told.top[i].back().second, told.logprobs[i]);
    logits = prefill(dev, model_, *kv, int(p.size() + i), {&best, 1});
  }
  EXPECT_EQ(told.ends, std::vector{ServeEnd::length});
}

// Memory for a third of them, prompts in small parts, requests that come and go at random, beginnings that are shared.
TEST_F(BatcherTest, WhatARequestIsToldDoesNotDependOnTheOthers) {
  std::mt19937 random(5);
  const std::vector<int32_t> common = prompt(600, 99);
  std::vector<ServeRequest> requests;
  for (unsigned i = 0; i < 24; ++i) {
    ServeRequest r{.prompt = prompt(1 + int(random() % 500), 100 + i), .max_tokens = 1 + int(random() % 60)};
    if (i % 3 == 0) r.prompt.insert(r.prompt.begin(), common.begin(), common.begin() + 200 + int(random() % 400));
    if (i % 2) r.sampling = {.temperature = 1, .seed = i};
    r.top_logprobs = int(i % 4) - 1;
    r.score_prompt = i % 8 == 7;
    requests.push_back(r);
  }
  std::vector<Told> want, told(requests.size());
  for (const ServeRequest& r : requests) want.push_back(alone(r));

  for (const int chunk : {0, 37}) {
    Batcher::Limits limits = room_for(12);
    limits.chunk_tokens = chunk, limits.step_tokens = 200, limits.sequences = 8;
    Batcher b = batcher(limits);
    std::ranges::fill(told, Told{});
    Told gone;
    for (size_t next = 0; next < requests.size() || !b.idle();) {
      if (next < requests.size() && random() % 3 == 0) {
        b.add(next, hears(requests[next], told[next]));
        b.add(1000 + next, hears(requests[(next + 5) % requests.size()], gone));
        ++next;
      }
      if (random() % 4 == 0) b.cancel(1000 + random() % requests.size());
      b.step();
      ASSERT_LE(b.counts().kv_used, 1);
    }
    for (size_t i = 0; i < requests.size(); ++i) EXPECT_EQ(told[i], want[i]) << i;
    EXPECT_GT(b.counts().preemptions, 0);
    EXPECT_GT(b.counts().cached_tokens, 0);
  }
}

TEST_F(BatcherTest, ABeginningThatWasReadIsNotReadAgain) {
  Batcher b = batcher(room_for(32));
  const std::vector<int32_t> common = prompt(1024, 3);
  for (unsigned i = 0; i < 2; ++i) {
    ServeRequest r{.prompt = common, .max_tokens = 1};
    const std::vector<int32_t> own = prompt(5, 10 + i);
    r.prompt.insert(r.prompt.end(), own.begin(), own.end());
    b.add(i, r);
    while (!b.idle()) b.step();
  }
  EXPECT_EQ(b.counts().cached_tokens, 1024);
  EXPECT_EQ(b.counts().prompt_tokens, 1029 + 5);
}

TEST_F(BatcherTest, APromptIsScored) {
  const std::vector<int32_t> p = prompt(700, 4);
  const Told told = alone({.prompt = p, .top_logprobs = 0, .score_prompt = true});
  const auto kv = device_.backend->kv_cache(model_.spec.blocks, kCacheType);
  const Sequence s{kv.get(), 0, int(p.size())};
  const Tensor logits = head_logits(*device_.backend, model_, hidden_forward(*device_.backend, model_, p, {&s, 1}));
  ASSERT_EQ(told.prompt.size(), p.size() - 1);
  for (size_t i = 0; i + 1 < p.size(); ++i) {
    const auto l = logits.rows(int64_t(i), int64_t(i) + 1).as<float>();
    double sum = 0;
    for (float v : l) sum += std::exp(double(v) - double(l[size_t(p[i + 1])]));
    EXPECT_NEAR(told.prompt[i], -std::log(sum), 1e-5) << i;
  }
  EXPECT_TRUE(told.tokens.empty());
  EXPECT_EQ(told.ends, std::vector{ServeEnd::length});
}

TEST_F(BatcherTest, AnEmbeddingIsTheMeanOfTheLastHiddenStates) {
  const std::vector<int32_t> p = prompt(600, 6);
  const Told told = alone({.prompt = p, .embed = true});
  const auto kv = device_.backend->kv_cache(model_.spec.blocks, kCacheType);
  const Sequence s{kv.get(), 0, int(p.size())};
  const Tensor hidden = hidden_forward(*device_.backend, model_, p, {&s, 1});
  ASSERT_EQ(told.embedding.size(), 64u);
  for (size_t c = 0; c < 64; ++c) {
    double sum = 0;
    for (int64_t t = 0; t < 600; ++t) sum += double(hidden.as<float>()[size_t(t) * 64 + c]);
    EXPECT_NEAR(told.embedding[c], sum / 600, 1e-6);
  }
}

TEST_F(BatcherTest, AnAnswerEndsWhereItShall) {
  const std::vector<int32_t> p = prompt(20, 7);
  const Told whole = alone({.prompt = p, .max_tokens = 12});
  const auto stop = size_t(std::ranges::find(whole.tokens, whole.tokens[6]) - whole.tokens.begin());
  const Told stopped = alone({.prompt = p, .max_tokens = 12, .ends = {whole.tokens[6]}});
  EXPECT_EQ(stopped.tokens, std::vector(whole.tokens.begin(), whole.tokens.begin() + ptrdiff_t(stop)));
  EXPECT_EQ(stopped.ends, std::vector{ServeEnd::stop});
  const Told longer = alone({.prompt = p, .max_tokens = 12, .min_tokens = 12, .ends = {whole.tokens[6]}});
  EXPECT_EQ(longer.tokens.size(), 12u);
  EXPECT_EQ(std::ranges::count(longer.tokens, whole.tokens[6]), 0);

  Batcher b = batcher(room_for(4));
  Told told;
  ServeRequest r = hears({.prompt = p, .max_tokens = 12}, told);
  r.events.token = [&](const ServedToken& t) {
    told.tokens.push_back(t.token);
    return told.tokens.size() < 3;
  };
  b.add(0, r);
  while (!b.idle()) b.step();
  EXPECT_EQ(told.tokens.size(), 3u);
  EXPECT_EQ(told.ends, std::vector{ServeEnd::stop});
}

TEST_F(BatcherTest, WhatDoesNotFitIsRefused) {
  EXPECT_THROW(batcher({.kv_bytes = page_bytes() - 1}), Error);
  Batcher b = batcher(room_for(2));
  EXPECT_EQ(b.longest(), 512);
  EXPECT_THROW(b.check({.prompt = {}, .max_tokens = 1}), Error);
  EXPECT_THROW(b.check({.prompt = prompt(510, 1), .max_tokens = 3}), Error);
  EXPECT_THROW(b.check({.prompt = {0, 300}, .max_tokens = 1}), Error);
  EXPECT_THROW(b.check({.prompt = {-1}, .max_tokens = 1}), Error);
  EXPECT_THROW(b.check({.prompt = {0}, .max_tokens = 1, .sampling = {.bias = {{300, 1.f}}}}), Error);
  EXPECT_THROW(batcher(room_for(100)).check({.prompt = prompt(2040, 1), .max_tokens = 9}), Error);
  EXPECT_NO_THROW(b.check({.prompt = prompt(510, 1), .max_tokens = 2}));
  b.add(0, {.prompt = prompt(510, 1), .max_tokens = 2});
  while (!b.idle()) b.step();
}

Tensor some_page() { return Tensor::zeros({4}, DType::f32); }

TEST(PageStore, FindsTheLongestChainAndDropsWhatIsUnusedLongest) {
  PageStore store(2);
  auto first = store.put(0, nullptr, std::vector<int32_t>{1, 2}, {some_page()});
  auto second = store.put(0, first, std::vector<int32_t>{3, 4}, {some_page()});
  store.put(0, first, std::vector<int32_t>{5, 6}, {some_page()});
  store.put(1, nullptr, std::vector<int32_t>{1, 2}, {some_page()});
  EXPECT_EQ(store.pages(), 4);
  EXPECT_EQ(store.put(0, first, std::vector<int32_t>{3, 4}, {some_page()}), second);
  EXPECT_EQ(store.pages(), 4);
  const std::vector<int32_t> tokens{1, 2, 3, 4, 5, 6};
  EXPECT_EQ(store.find(0, tokens), (std::vector{first, second}));
  EXPECT_EQ(store.find(0, std::span(tokens).first(3)), std::vector{first});
  EXPECT_TRUE(store.find(2, tokens).empty());
  // In use are `first` and `second`; of the others the one behind `first` came before the other kind's.
  EXPECT_TRUE(store.drop_one());
  EXPECT_TRUE(store.find(0, std::vector<int32_t>{1, 2, 5, 6}).size() == 1);
  EXPECT_TRUE(store.drop_one());
  EXPECT_TRUE(store.find(1, tokens).empty());
  EXPECT_FALSE(store.drop_one());
  first.reset();
  EXPECT_FALSE(store.drop_one());  // `second` is behind it
  second.reset();
  EXPECT_TRUE(store.drop_one());
  EXPECT_TRUE(store.drop_one());
  EXPECT_EQ(store.pages(), 0);
}

}  // namespace
}  // namespace awq
