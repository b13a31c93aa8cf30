#include "quantizer/calibration.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "block_fixture.h"
#include "float_set.h"
#include "quantizer/method.h"

namespace awq {
namespace {

constexpr int kLength = 24, kSequences = 3, kTokens = kLength * kSequences, kDim = 64;

class Masked : public testing::Test {
 protected:
  Masked() : host_{pool_, float_set()}, dev_(cpu_backend(pool_, host_.kernels)) {
    const ModelSpec model = find_architecture("LlamaForCausalLM").parse(nlohmann::json::parse(R"({
      "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 96,
      "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32, "rms_norm_eps": 1e-5,
      "rope_theta": 10000.0, "vocab_size": 32, "max_position_embeddings": 64})"));
    std::mt19937 random(3);
    w_.spec = model.blocks[0];
    for (Param p : w_.spec.params()) {
      const auto [rows, cols] = w_.spec.shape(p);
      w_.at[p] = filled(cols ? Shape{rows, cols} : Shape{rows}, random);
    }
    hidden_ = filled({kTokens, kDim}, random);
    for (int i = 0; i < kTokens; ++i) counted_.push_back(i >= kLength && i % 5 < 2);  // none of the first sequence
  }
  static Tensor filled(Shape shape, std::mt19937& random) {
    std::normal_distribution<float> normal;
    Tensor t = Tensor::empty(shape, DType::f32);
    for (float& v : t.as<float>()) v = normal(random);
    return t;
  }
  BlockCalibration run(std::span<const uint8_t> counted, Tensor& hidden) {
    return calibrate(*dev_, host_, upload(*dev_, w_), 0, in_memory(hidden, kLength),
                     {.sample_sequences = 2, .sample_rows = 7, .counted = counted}, costs_);
  }
  /// The input of each site, all tokens.
  std::map<Site, Tensor> inputs() {
    std::map<Site, Tensor> seen;
    std::vector<std::unique_ptr<KvCache>> caches;
    std::vector<Sequence> batch;
    for (int i = 0; i < kSequences; ++i) {
      caches.push_back(dev_->kv_cache({&w_.spec, 1}));
      batch.push_back({caches.back().get(), 0, kLength});
    }
    Tensor x = hidden_.clone();
    block_forward(*dev_, upload(*dev_, w_), batch, 0, x, [&](Site s, const Tensor& t, auto) { seen[s] = t.clone(); });
    return seen;
  }

  ThreadPool pool_{2};
  Host host_;
  BlockCosts costs_;
  std::unique_ptr<Backend> dev_;
  BlockWeights w_;
  Tensor hidden_;
  std::vector<uint8_t> counted_;
};

// Tokens of 25 sequences of 24 come in two pieces, 504 and 96; some of them count not at all, and the others as much as
// they weigh. Sums of 600 products in f32, in another order: 600 * 2^-24 of the largest if all errors agreed.
TEST_F(Masked, TokensCountAsMuchAsTheyWeigh) {
  constexpr int kMany = 25 * kLength;
  std::mt19937 random(11);
  Tensor hidden = filled({kMany, kDim}, random), x = hidden.clone();
  std::vector<uint8_t> counted;
  std::vector<float> weights;
  for (int t = 0; t < kMany; ++t) counted.push_back(t % 7 != 2), weights.push_back(float(t % 5) + (t < 504 ? 0 : 9));
  std::map<Site, Tensor> seen;
  run_sequences(*dev_, upload(*dev_, w_), kLength, x, [&](Site s, const Tensor& in, auto) { seen[s] = in.clone(); });
  HiddenStates states = in_memory(hidden, kLength);
  states.weights[{Role::down}] = weights;
  const BlockCalibration c = calibrate(*dev_, host_, upload(*dev_, w_), 0, states, {.counted = counted}, costs_);
  for (const auto& [site, in] : seen) {
    const bool weighed = site.role == Role::down;
    const int64_t cols = in.shape()[1];
    for (int64_t i = 0; i < cols; i += 7) {
      double sum = 0;
      for (int t = 0; t < kMany; ++t) {
        const double v = double(in.as<float>()[size_t(t * cols + i)]);
        if (counted[size_t(t)]) sum += v * v * double(weighed ? weights[size_t(t)] : 1);
      }
      EXPECT_NEAR(c.sites.at(site).gram.at(i, i), sum, 600 * 0x1p-24 * sum) << name_of(site.role) << ' ' << i;
    }
  }
}

TEST_F(Masked, StatisticsAreThoseOfTheTokensThatCount) {
  Tensor hidden = hidden_.clone();
  const BlockCalibration c = run(counted_, hidden);
  for (const auto& [site, x] : inputs()) {
    const SiteStatistics& s = c.sites.at(site);
    const auto n = size_t(x.shape()[1]);
    EXPECT_EQ(s.tokens, std::ranges::count(counted_, 1));
    for (size_t i : {size_t(0), n / 2, n - 1}) {
      double sum = 0, product = 0;
      for (size_t t = 0; t < kTokens; ++t) {
        if (!counted_[t]) continue;
        sum += std::abs(double(x.as<float>()[t * n + i]));
        product += double(x.as<float>()[t * n + i]) * double(x.as<float>()[t * n + n - 1]);
      }
      // Sums of up to 64 values and of 20 products in f32.
      EXPECT_NEAR(s.sum_abs[i], sum, 64 * 0x1p-24 * sum);
      EXPECT_NEAR(double(s.gram.at(int64_t(i), int64_t(n) - 1)), product,
                  20 * 0x1p-24 * (std::abs(product) + sum * sum));
    }
  }
}

TEST_F(Masked, TheOthersAreStillAttendedTo) {
  Tensor masked = hidden_.clone(), whole = hidden_.clone();
  run(counted_, masked);
  run({}, whole);
  EXPECT_TRUE(std::ranges::equal(masked.as<float>(), whole.as<float>()));
}

TEST_F(Masked, AllThatCountIsNoMask) {
  Tensor masked = hidden_.clone(), whole = hidden_.clone();
  const std::vector<uint8_t> all(kTokens, 1);
  const BlockCalibration a = run(all, masked), b = run({}, whole);
  for (const auto& [site, s] : a.sites) {
    for (int64_t i = 0; i < s.gram.channels(); ++i)
      for (int64_t j = i; j < s.gram.channels(); ++j) EXPECT_EQ(s.gram.at(i, j), b.sites.at(site).gram.at(i, j));
    EXPECT_EQ(s.sum_abs, b.sites.at(site).sum_abs);
    if (!s.sample) continue;
    EXPECT_TRUE(std::ranges::equal(s.sample.as<float>(), b.sites.at(site).sample.as<float>()));
  }
}

TEST_F(Masked, SamplesAreOfTokensThatCount) {
  Tensor hidden = hidden_.clone();
  const BlockCalibration c = run(counted_, hidden);
  const auto seen = inputs();
  ASSERT_EQ(c.sample_sequences, 2);  // the first has no token that counts
  const Tensor &q = c.sites.at({Role::q}).sample, &gate = c.sites.at({Role::gate}).sample;
  EXPECT_TRUE(std::ranges::equal(q.as<float>(), seen.at({Role::q}).rows(kLength, kTokens).as<float>()));
  EXPECT_TRUE(std::ranges::equal(c.sample_counted, std::span(counted_).subspan(kLength)));
  ASSERT_EQ(gate.shape()[0], 7);
  std::vector<int64_t> found;
  for (int64_t r = 0; r < 7; ++r)
    for (int64_t t = 0; t < kTokens; ++t)
      if (std::ranges::equal(gate.rows(r, r + 1).as<float>(), seen.at({Role::gate}).rows(t, t + 1).as<float>())) {
        EXPECT_TRUE(counted_[size_t(t)]);
        found.push_back(t);
      }
  EXPECT_EQ(found.size(), 7u);
}

// What "no scaling" costs q, k and v: the attention's output error over the rows of the sample that count.
TEST_F(Masked, AttentionIsJudgedByTheTokensThatCount) {
  Tensor hidden = hidden_.clone();
  const BlockCalibration c = run(counted_, hidden);
  const Block block = upload(*dev_, w_);
  const QuantSpec spec{.bits = 4, .group_size = 32};
  BlockWeights w = w_;
  for (auto& [p, t] : w.at) t = std::get<Tensor>(t).clone();
  const Solution s = find_method("awq").make()->solve(w, block, c, {spec, *dev_, host_, costs_, {}});
  const auto output = [&](const Block& b) {
    std::vector<std::unique_ptr<KvCache>> caches;
    std::vector<Sequence> batch;
    for (int i = 0; i < 2; ++i) {
      caches.push_back(dev_->kv_cache({&b.spec, 1}));
      batch.push_back({caches.back().get(), 0, kLength});
    }
    Tensor y = dev_->empty({2 * kLength, kDim});
    attention_forward(*dev_, b, batch, 0, c.sites.at({Role::q}).sample, y);
    return y;
  };
  Block rounded = block;
  for (Role r : {Role::q, Role::k, Role::v})
    rounded.linear[{r}] = dev_->linear(dequantize(quantize(w_.tensor({r}), spec)), nullptr);
  const Tensor a = output(block), b = output(rounded);
  double want = 0;
  for (size_t i = 0; i < a.as<float>().size(); ++i)
    if (c.sample_counted[i / kDim]) want += std::pow(double(a.as<float>()[i]) - double(b.as<float>()[i]), 2);
  EXPECT_NEAR(s.groups.front().identity_loss / want, 1, 1e-6);
}

/// Those whose place in `all` is `rows`.
std::vector<float> picked(const Tensor& all, const std::vector<int64_t>& rows) {
  std::vector<float> some;
  for (int64_t r : rows) {
    const auto row = all.rows(r, r + 1).as<float>();
    some.insert(some.end(), row.begin(), row.end());
  }
  return some;
}

// The block sees 512 tokens at most at once. Four sequences of 300 are seen one after another, and each alone, which
// gives all of its inputs.
TEST(Calibration, SamplesOfManyPassesAreInTheOrderOfTokens) {
  constexpr int64_t kLong = 300, kAll = 4 * kLong;
  SmallBlock small;
  std::mt19937 random(3);
  const Tensor hidden = random_tensor({kAll, 128}, random);
  BlockCosts costs;
  const auto seen = [&](int64_t first, int64_t tokens, int sequences, int rows) {
    const HiddenStates states{
        tokens, kLong, [&](int64_t begin, int64_t end) { return hidden.rows(first + begin, first + end).clone(); }, {}};
    const CalibrationOptions options{.sample_sequences = sequences, .sample_rows = rows};
    return calibrate(*small.dev, small.host, upload(*small.dev, small.w), 0, states, options, costs);
  };
  const BlockCalibration c = seen(0, kAll, 2, 5);
  std::vector<int64_t> sequences;  // the first and the third
  for (int64_t r = 0; r < kLong; ++r) sequences.push_back(r);
  for (int64_t r = 2 * kLong; r < 3 * kLong; ++r) sequences.push_back(r);
  for (const auto& [site, rows] : {std::pair(Site{Role::q}, sequences), {Site{Role::gate}, {0, 240, 480, 720, 960}}}) {
    Tensor all = Tensor::empty({kAll, 128}, DType::f32);
    for (int64_t first = 0; first < kAll; first += kLong)
      std::ranges::copy(seen(first, kLong, 1, kLong).sites.at(site).sample.as<float>(),
                        all.rows(first, first + kLong).as<float>().begin());
    const auto sample = c.sites.at(site).sample.as<float>();
    EXPECT_EQ(std::vector<float>(sample.begin(), sample.end()), picked(all, rows)) << name_of(site.role);
  }
}

}  // namespace
}  // namespace awq
