#include "eval/sensitivity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "api_sensitivity.h"
#include "awq/error.h"

namespace awq {
namespace {

constexpr int kWindow = 24, kWindows = 3;

std::vector<int32_t> tokens_of(int count, int vocab, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(int32_t(random() % unsigned(vocab)));
  return tokens;
}

Tensor logits_of(Device& d, const Model& m, std::span<const int32_t> window) {
  const auto kv = d.backend->kv_cache(m.spec.blocks);
  const Sequence s{kv.get(), 0, int(window.size())};
  return head_logits(*d.backend, m, hidden_forward(*d.backend, m, window, {&s, 1}));
}

/// Mean over the positions that predict a token of the window, in double.
double kl_of(const Tensor& p_logits, const Tensor& q_logits) {
  const int64_t positions = p_logits.shape()[0] - 1, vocab = p_logits.shape()[1];
  const auto log_sum = [&](const float* row) {
    double sum = 0;
    for (int64_t v = 0; v < vocab; ++v) sum += std::exp(double(row[v]));
    return std::log(sum);
  };
  double kl = 0;
  for (int64_t t = 0; t < positions; ++t) {
    const float *p = p_logits.as<float>().data() + t * vocab, *q = q_logits.as<float>().data() + t * vocab;
    const double lp = log_sum(p), lq = log_sum(q);
    for (int64_t v = 0; v < vocab; ++v) kl += std::exp(p[v] - lp) * ((p[v] - lp) - (q[v] - lq));
  }
  return kl / double(positions);
}

/// Logits are within 2.3e-5 of the largest of what they are in exact arithmetic (kTolerance + kPairs of the golden
/// test), for each of two models. KL is about sum p d^2 / 2 of their differences d, so it moves by sqrt(2 KL) e + e^2
/// / 2.
double kl_rounding(double kl, const Tensor& logits) {
  float largest = 0;
  for (float v : logits.as<float>()) largest = std::max(largest, std::abs(v));
  const double e = 2 * 2.3e-5 * double(largest);
  return std::sqrt(2 * kl) * e + e * e / 2;
}

class Sensitivity : public testing::TestWithParam<const char*> {
 protected:
  std::unique_ptr<Checkpoint> source_ = Checkpoint::open(std::filesystem::path(AWQ_TEST_DIR) / "golden" / GetParam());
  Device device_{2, ""};
  Model model_ = load_model(*device_.backend, *source_);
  std::vector<int32_t> windows_ = tokens_of(kWindow * kWindows, source_->spec().vocab, 1);
  const QuantSpec spec_{.bits = 4, .group_size = 32};

  std::vector<MatrixSensitivity> run(std::string_view method, std::span<const std::vector<int32_t>> sequences = {}) {
    const auto m = find_method(method).make();
    return sensitivities({*source_, model_, *m, spec_, sequences, {}, windows_, kWindow, device_, {}});
  }
};

// Against the whole model run from its first token with one matrix replaced.
TEST_P(Sensitivity, IsTheDivergenceOfAModelWithThatMatrixRounded) {
  const auto measured = run("rtn");
  size_t i = 0;
  for (int b = 0; b < int(model_.blocks.size()); ++b) {
    const BlockWeights w = load_float_block(*source_, b, device_.pool);
    for (Param p : w.spec.params()) {
      if (is_norm(p.role)) continue;
      ASSERT_LT(i, measured.size());
      EXPECT_EQ(measured[i].block, b);
      EXPECT_EQ(measured[i].param, p);
      Model changed = model_;
      const auto bias = w.bias.find(p);
      changed.blocks[size_t(b)].linear[p] =
          device_.backend->linear(dequantize(quantize(whole(in_type(w.pieces(p), DType::f32), device_.pool), spec_)),
                                  bias == w.bias.end() ? nullptr : &bias->second);
      for (int n = 0; n < kWindows; ++n) {
        const auto window = std::span(windows_).subspan(size_t(n * kWindow), kWindow);
        const Tensor original = logits_of(device_, model_, window);
        const double want = kl_of(original, logits_of(device_, changed, window));
        EXPECT_NEAR(measured[i].kl[size_t(n)], want, kl_rounding(want, original)) << b << " " << name_of(p.role);
        EXPECT_GT(want, 1e-6);
      }
      ++i;
    }
  }
  EXPECT_EQ(i, measured.size());
}

// AWQ rescales before it rounds; alone, a matrix must still cost about what its own error explains, not what a broken
// fold would (KL of 1 and more).
TEST_P(Sensitivity, ScalesOfTheOtherMatricesAreNotPartOfIt) {
  const std::vector<std::vector<int32_t>> sequences = {tokens_of(32, source_->spec().vocab, 2),
                                                       tokens_of(32, source_->spec().vocab, 3)};
  const auto awq = run("awq", sequences), rtn = run("rtn");
  ASSERT_EQ(awq.size(), rtn.size());
  double sum_awq = 0, sum_rtn = 0;
  for (size_t i = 0; i < awq.size(); ++i)
    for (int n = 0; n < kWindows; ++n) {
      sum_awq += awq[i].kl[size_t(n)];
      sum_rtn += rtn[i].kl[size_t(n)];
    }
  EXPECT_GT(sum_awq, 0);
  EXPECT_LT(sum_awq, 1.5 * sum_rtn);
}

INSTANTIATE_TEST_SUITE_P(Families, Sensitivity, testing::Values("llama", "qwen2", "gemma3"));

std::vector<KeepUnit> units() {
  return {{.layers = {{0, {Role::q}}, {0, {Role::k}}, {0, {Role::v}}}, .kl = {0.1, 0.2, 0.3}, .weights = 300},
          {.layers = {{0, {Role::o}}}, .kl = {0.25}, .weights = 100},
          {.layers = {{0, {Role::gate}}, {0, {Role::up}}}, .kl = {0.01, 0.02}, .weights = 400},
          {.layers = {{0, {Role::down}}}, .kl = {0.31}, .weights = 200}};
}
std::vector<Role> firsts(const std::vector<KeepUnit>& chosen) {
  std::vector<Role> roles;
  for (const KeepUnit& u : chosen) roles.push_back(u.layers.front().second.role);
  return roles;
}

TEST(Keep, TakesTheLargestWithTheLayersThatAreFusedWithThem) {
  EXPECT_EQ(firsts(most_sensitive(units(), 1)), (std::vector{Role::down}));
  EXPECT_EQ(firsts(most_sensitive(units(), 2)), (std::vector{Role::down, Role::q}));
  EXPECT_EQ(firsts(most_sensitive(units(), 4)), (std::vector{Role::down, Role::q}));
  EXPECT_EQ(firsts(most_sensitive(units(), 5)), (std::vector{Role::down, Role::q, Role::o}));
  EXPECT_EQ(most_sensitive(units(), 100).size(), 4u);
}

// By KL per weight: o 0.0025, q k v 0.002, down 0.00155, gate up 0.000075. Keeping adds 12 bits to each of their
// weights.
TEST(Keep, FillsTheBudgetWithTheMostKlPerBit) {
  EXPECT_EQ(firsts(within_budget(units(), 4.0, 4)), (std::vector<Role>{}));
  EXPECT_EQ(firsts(within_budget(units(), 5.2, 4)), (std::vector{Role::o}));              // 100 of 1,000 weights
  EXPECT_EQ(firsts(within_budget(units(), 7.7, 4)), (std::vector{Role::o, Role::down}));  // 308: q k v do not fit
  EXPECT_EQ(firsts(within_budget(units(), 8.8, 4)), (std::vector{Role::o, Role::q}));     // 400
  EXPECT_EQ(within_budget(units(), 16, 4).size(), 4u);
  EXPECT_THROW(within_budget(units(), 3.99, 4), Error);
}

TEST(Split, IsProportionalAndAddsUp) {
  const auto parts = [](std::vector<double> weights, int total) {
    std::vector<CalibrationSource> s;
    for (double w : weights) s.push_back({{}, w});
    return split_by_weight(s, total);
  };
  EXPECT_EQ(parts({1}, 16), (std::vector{16}));
  EXPECT_EQ(parts({1, 3}, 16), (std::vector{4, 12}));
  EXPECT_EQ(parts({1, 1, 1}, 16), (std::vector{6, 5, 5}));
  EXPECT_EQ(parts({1e-9, 1}, 16), (std::vector{0, 16}));
  EXPECT_EQ(parts({0.5, 0.25, 0.25}, 7), (std::vector{3, 2, 2}));  // 3.5, 1.75, 1.75
}

}  // namespace
}  // namespace awq
