#include "bench/random_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/numeric.h"
#include "bench/models.h"
#include "bench/shapes.h"
#include "bench/speed.h"

namespace awq {
namespace {

bool same(const Tensor& a, const Tensor& b) {
  return a.bytes() == b.bytes() && std::memcmp(a.data(), b.data(), a.bytes()) == 0;
}
bool same(const Weight& a, const Weight& b) {
  if (const auto* t = std::get_if<Tensor>(&a)) return same(*t, std::get<Tensor>(b));
  const auto &p = std::get<QMatrix>(a), &q = std::get<QMatrix>(b);
  return same(p.codes, q.codes) && same(p.scales, q.scales) && same(p.zeros, q.zeros);
}

constexpr Param kSome[] = {{Role::q}, {Role::down}};

TEST(RandomModel, SeedDecidesAndThreadsDoNot) {
  ThreadPool one(1), five(5);
  const auto a = random_model(tiny_config(), groups_of(32), {}, 7, one),
             b = random_model(tiny_config(), groups_of(32), {}, 7, five),
             c = random_model(tiny_config(), groups_of(32), {}, 8, one);
  for (const Param p : kSome) {
    EXPECT_TRUE(same(a->weight(1, p), b->weight(1, p)));
    EXPECT_FALSE(same(a->weight(1, p), c->weight(1, p)));
    EXPECT_FALSE(same(a->weight(1, p), a->weight(2, p)));
  }
  for (const Role r : {Role::embed, Role::head}) {
    EXPECT_TRUE(same(a->weight(-1, {r}), b->weight(-1, {r})));
    EXPECT_FALSE(same(a->weight(-1, {r}), c->weight(-1, {r})));
  }
  EXPECT_FALSE(same(a->weight(-1, {Role::embed}), a->weight(-1, {Role::head})));
}

double variance(std::span<const float> v) {
  double sum = 0, squares = 0;
  for (const float x : v) sum += x, squares += double(x) * x;
  const double mean = sum / double(v.size());
  return squares / double(v.size()) - mean * mean;
}

// 32,768 weights: the variance of a uniform sample is known to about sqrt(0.8 / n), half a percent; the jitter of
// scales, even in [3/4, 5/4], adds 1/48 to the mean square. All within 4 %.
TEST(RandomModel, WeightsHaveTheVarianceOfOneOverColumns) {
  ThreadPool pool(2);
  const auto m = random_model(tiny_config(), groups_of(32), {}, 3, pool);
  const Tensor w = dequantize(std::get<QMatrix>(m->weight(0, {Role::gate})));
  EXPECT_NEAR(variance(w.as<float>()) * 128, 1, 0.04);
  EXPECT_NEAR(variance(std::get<Tensor>(m->weight(-1, {Role::head})).to(DType::f32).as<float>()) * 128, 1, 0.04);
  for (const int bits : {4, 8}) {
    const auto q = random_model(tiny_config(), groups_of(32), QuantSpec{.bits = bits, .group_size = 64}, 3, pool);
    const auto head = std::get<QMatrix>(q->weight(-1, {Role::head}));
    EXPECT_EQ(head.spec, (QuantSpec{.bits = bits, .group_size = 64}));
    EXPECT_NEAR(variance(dequantize(head).as<float>()) * 128, 1, 0.04) << bits;
    EXPECT_TRUE(same(q->weight(0, {Role::gate}), m->weight(0, {Role::gate})));
  }
}

// As above; bf16 rounds by 2^-9 at most. f32 holds the same values.
TEST(RandomModel, FloatMatricesAreBf16ValuesOfThatVariance) {
  ThreadPool pool(2);
  const auto narrow = random_model(tiny_config(), DType::bf16, {}, 3, pool),
             wide = random_model(tiny_config(), DType::f32, {}, 3, pool);
  for (const Param p : kSome) {
    const Tensor a = std::get<Tensor>(narrow->weight(1, p)), b = std::get<Tensor>(wide->weight(1, p));
    EXPECT_EQ(a.dtype(), DType::bf16);
    EXPECT_EQ(b.dtype(), DType::f32);
    EXPECT_TRUE(same(a.to(DType::f32), b));
    EXPECT_NEAR(variance(b.as<float>()) * double(b.shape()[1]), 1, 0.04);
  }
}

// Logits of variance 1, whatever the depth: 64 tokens of 300 logits, which are correlated through 64 states.
TEST(RandomModel, LogitsKeepTheirSpreadThroughTheDepth) {
  for (const int blocks : {1, 40}) {
    const Loaded l(kernels::select(), tiny_config(blocks));
    const auto kv = l.backend->kv_cache(l.model.spec.blocks);
    const Sequence s{kv.get(), 0, 64};
    const Tensor logits =
        head_logits(*l.backend, l.model, hidden_forward(*l.backend, l.model, random_tokens(300, 64, 1), {&s, 1}));
    EXPECT_NEAR(variance(logits.as<float>()), 1, 0.2) << blocks;
  }
}

TEST(RandomModel, FirstBlocksAreTheModels) {
  ThreadPool pool(2);
  const auto m = random_model(tiny_config(), groups_of(32), {}, 3, pool);
  const auto cut = first_blocks(*m, 2);
  EXPECT_EQ(cut->spec().blocks.size(), 2U);
  EXPECT_EQ(m->spec().blocks.size(), 3U);
  EXPECT_TRUE(same(cut->weight(1, {Role::up}), m->weight(1, {Role::up})));
}

// A copy of a cache goes its own way: the same tokens give the same logits, and neither sees the other's.
TEST(KvCache, ClonesAreIndependent) {
  const Loaded l(kernels::select());
  const auto a = l.backend->kv_cache(l.model.spec.blocks, DType::f16);
  const auto tokens = random_tokens(300, 40, 1);
  prefill(*l.backend, l.model, *a, 0, tokens);
  const auto b = a->clone(), c = a->clone();
  EXPECT_EQ(a->bytes(), b->bytes());
  const auto next = [&](KvCache& kv, int32_t token, int position) {
    return prefill(*l.backend, l.model, kv, position, {&token, 1});
  };
  next(*b, 17, 20);  // overwrites what the others see
  EXPECT_TRUE(same(next(*a, 5, 40), next(*c, 5, 40)));
  EXPECT_FALSE(same(next(*a, 5, 41), next(*b, 5, 41)));
}

TEST(Prefill, ChunksGiveTheLogitsOfTheWhole) {
  nlohmann::json config = tiny_config();
  config["max_position_embeddings"] = 2048;
  const Loaded l(kernels::select(), config);
  const auto tokens = random_tokens(300, 2 * kPrefillChunk + 3, 1);
  const auto a = l.backend->kv_cache(l.model.spec.blocks), b = l.backend->kv_cache(l.model.spec.blocks);
  const Sequence s{a.get(), 0, int(tokens.size())};
  const Tensor hidden = hidden_forward(*l.backend, l.model, tokens, {&s, 1});
  std::vector<int> done;
  const Tensor chunked = prefill(*l.backend, l.model, *b, 0, tokens, [&](int n) { done.push_back(n); });
  EXPECT_TRUE(same(chunked, head_logits(*l.backend, l.model, hidden.rows(s.tokens - 1, s.tokens))));
  EXPECT_EQ(done, (std::vector<int>{512, 1024, 1027}));
}

}  // namespace
}  // namespace awq
