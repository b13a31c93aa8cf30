// The gated delta rule against a plain one in double precision, and what its states promise.
#include "model/delta.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <random>

#include "base/check.h"
#include "kernels/registry.h"

namespace awq {
namespace {

constexpr DeltaSpec kDelta{.key_heads = 2, .value_heads = 6, .key_dim = 8, .value_dim = 20, .kernel = 4};
constexpr int kDeltaTokens = 70;

Tensor normal(Shape shape, unsigned seed, float mean = 0) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> dist(mean, 1);
  Tensor t = Tensor::empty(shape, DType::f32);
  for (float& v : t.as<float>()) v = dist(rng);
  return t;
}

DeltaInput random_input(unsigned seed, const DeltaSpec& d = kDelta) {
  const Shape one{d.value_heads};
  return {normal({kDeltaTokens, d.key_rows()}, seed),
          normal({kDeltaTokens, d.key_rows()}, seed + 1),
          normal({kDeltaTokens, d.value_rows()}, seed + 2),
          normal({kDeltaTokens, d.value_heads}, seed + 3),
          normal({kDeltaTokens, d.value_heads}, seed + 4),
          normal({int64_t(d.channels()) * d.kernel}, 5),
          normal(one, 6),
          normal(one, 7, -1)};
}

DeltaInput rows_of_input(const DeltaInput& in, int64_t first, int64_t end) {
  DeltaInput part = in;
  for (Tensor DeltaInput::*t : {&DeltaInput::q, &DeltaInput::k, &DeltaInput::v, &DeltaInput::beta, &DeltaInput::decay})
    part.*t = (in.*t).rows(first, end);
  return part;
}

/// As the paper has it, a head after the other, from the first token on.
class PlainDelta {
 public:
  PlainDelta(const DeltaInput& in, const DeltaSpec& d) : in_(in), d_(d) {
    for (int h = 0; h < d.value_heads; ++h) head(h);
  }
  double at(int t, int h, int c) const { return out_.at({t, h, c}); }

 private:
  // Channel c of q (part 0), k or v behind the convolution and silu.
  double mixed(int t, int part, int c) const {
    const Tensor& x = part == 0 ? in_.q : part == 1 ? in_.k : in_.v;
    const int channel = part * d_.key_rows() + c;
    double sum = 0;
    for (int i = 0; i < d_.kernel; ++i)
      if (const int from = t - d_.kernel + 1 + i; from >= 0)
        sum += double(in_.conv.as<float>()[size_t(channel * d_.kernel + i)]) *
               double(x.as<float>()[size_t(from * x.shape()[1] + c)]);
    return sum / (1 + std::exp(-sum));
  }
  std::vector<double> unit(int t, int part, int key_head) const {
    std::vector<double> x;
    double squares = 1e-6;
    for (int i = 0; i < d_.key_dim; ++i) {
      x.push_back(mixed(t, part, key_head * d_.key_dim + i));
      squares += x.back() * x.back();
    }
    for (double& v : x) v /= std::sqrt(squares);
    return x;
  }
  double of_head(const Tensor& x, int t, int h) const { return double(x.as<float>()[size_t(t * d_.value_heads + h)]); }
  void head(int h) {
    std::vector<std::vector<double>> s(size_t(d_.key_dim), std::vector<double>(size_t(d_.value_dim)));
    const int shared = h / (d_.value_heads / d_.key_heads);
    for (int t = 0; t < int(in_.q.shape()[0]); ++t) {
      const auto q = unit(t, 0, shared), k = unit(t, 1, shared);
      const double rate = std::exp(double(in_.decay_rate.as<float>()[size_t(h)])),
                   x = of_head(in_.decay, t, h) + double(in_.decay_bias.as<float>()[size_t(h)]),
                   keep = std::exp(-rate * std::log1p(std::exp(x))),
                   beta = 1 / (1 + std::exp(-of_head(in_.beta, t, h)));
      for (int c = 0; c < d_.value_dim; ++c) {
        double known = 0, y = 0;
        for (size_t i = 0; i < q.size(); ++i) known += (s[i][size_t(c)] *= keep) * k[i];
        const double change = beta * (mixed(t, 2, h * d_.value_dim + c) - known);
        for (size_t i = 0; i < q.size(); ++i) y += (s[i][size_t(c)] += k[i] * change) * q[i];
        out_[{t, h, c}] = y / std::sqrt(double(d_.key_dim));
      }
    }
  }
  const DeltaInput& in_;
  const DeltaSpec& d_;
  std::map<std::tuple<int, int, int>, double> out_;
};

class DeltaTest : public testing::Test {
 protected:
  DeltaTest() { block_.delta = kDelta; }
  std::unique_ptr<KvCache> cache() { return dev_->kv_cache({&block_, 1}); }
  Tensor forward(const DeltaInput& in, Batch batch) {
    Tensor y = Tensor::empty({in.q.shape()[0], kDelta.value_rows()}, DType::f32);
    dev_->delta(in, batch, 0, kDelta, y);
    return y;
  }
  Tensor forward(KvCache& kv, const DeltaInput& in, int first, int end) {
    const Sequence s{&kv, first, end - first};
    return forward(rows_of_input(in, first, end), {&s, 1});
  }
  static void expect_same(const Tensor& a, const Tensor& b) {
    ASSERT_EQ(a.shape(), b.shape());
    EXPECT_EQ(0, std::memcmp(a.data(), b.data(), a.bytes()));
  }
  ThreadPool pool_{2};
  std::unique_ptr<Backend> dev_ = cpu_backend(pool_, kernels::select());
  BlockSpec block_;
};

// States are sums over tokens that shrink, of values and products near 1: some tens of roundings of 2^-24.
TEST_F(DeltaTest, EqualsThePlainOne) {
  const DeltaInput in = random_input(1);
  const auto kv = cache();
  const Tensor y = forward(*kv, in, 0, kDeltaTokens);
  const PlainDelta plain(in, kDelta);
  for (int t = 0; t < kDeltaTokens; ++t)
    for (int h = 0; h < kDelta.value_heads; ++h)
      for (int c = 0; c < kDelta.value_dim; ++c)
        ASSERT_NEAR(double(y.as<float>()[size_t((t * kDelta.value_heads + h) * kDelta.value_dim + c)]),
                    plain.at(t, h, c), 64 * 0x1p-24)
            << t << " " << h << " " << c;
}

// To the bit: in parts, beside another sequence, and on a copy of the cache while the original went on.
TEST_F(DeltaTest, DoesNotDependOnHowTokensCame) {
  const DeltaInput in = random_input(1);
  const auto whole = cache(), parts = cache();
  const Tensor y = forward(*whole, in, 0, kDeltaTokens);
  int first = 0;
  for (const int end : {1, 2, 5, 40, 69}) expect_same(forward(*parts, in, first, end), y.rows(first, end)), first = end;
  const auto copy = parts->clone();
  expect_same(forward(*parts, in, 69, 70), y.rows(69, 70));
  expect_same(forward(*copy, in, 69, 70), y.rows(69, 70));

  const auto a = cache(), b = cache();
  forward(*a, in, 0, 30), forward(*b, in, 0, 10);
  const Sequence both[] = {{a.get(), 30, 20}, {b.get(), 10, 20}};
  DeltaInput joined = rows_of_input(in, 30, 50), second = rows_of_input(in, 10, 30);
  for (Tensor DeltaInput::*t :
       {&DeltaInput::q, &DeltaInput::k, &DeltaInput::v, &DeltaInput::beta, &DeltaInput::decay}) {
    Tensor all = Tensor::empty({40, (joined.*t).shape()[1]}, DType::f32);
    std::ranges::copy((joined.*t).as<float>(), all.rows(0, 20).as<float>().begin());
    std::ranges::copy((second.*t).as<float>(), all.rows(20, 40).as<float>().begin());
    joined.*t = all;
  }
  const Tensor together = forward(joined, both);
  expect_same(together.rows(0, 20), y.rows(30, 50));
  expect_same(together.rows(20, 40), y.rows(10, 30));
}

TEST_F(DeltaTest, GoesBackToTheBeginningAlone) {
  const DeltaInput in = random_input(1);
  const auto kv = cache();
  const Tensor y = forward(*kv, in, 0, 20);
  for (const int first : {19, 21}) {
    try {
      forward(*kv, in, first, first + 1);
      ADD_FAILURE() << first;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(fmt::format("behind 20 tokens and cannot be run from token {}", first)),
                std::string::npos)
          << e.what();
    }
  }
  expect_same(forward(*kv, in, 0, 20), y);
}

TEST_F(DeltaTest, SizeIsAnnounced) {
  const auto kv = cache();
  EXPECT_EQ(kv->bytes(), 0);
  EXPECT_EQ(kv->bytes_for(0), 0);
  forward(*kv, random_input(1), 0, 1);
  EXPECT_EQ(kv->bytes(), 4 * (6 * 8 * 20 + 3 * (2 * 16 + 120)));
  EXPECT_EQ(kv->bytes_for(1), kv->bytes());
  EXPECT_EQ(kv->bytes_for(100000), kv->bytes());
}

}  // namespace
}  // namespace awq
