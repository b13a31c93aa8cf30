// CPU attention against a plain one in double precision, and its promises to the bit.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "base/numeric.h"
#include "base/parallel.h"
#include "kernels/registry.h"
#include "model/backend.h"
#include "sanitized.h"

namespace awq {
namespace {

constexpr double kU = 0x1p-24;  // largest relative error of one rounding to float
constexpr DType kTypes[] = {DType::f32, DType::f16, DType::bf16, DType::i8, DType::f8_e4m3};

bool has_scales(DType t) { return size_of(t) == 1; }

struct Heads {
  int heads, kv_heads, head_dim;
  std::optional<int> window;
  int value_dim = 0;
};

/// Queries, keys and values of `tokens` positions, and what attention makes of them in any order of calls.
class Case {
 public:
  Case(Heads h, int n, unsigned seed, float sigma = 2)
      : tokens(n),
        q(random(h.heads * h.head_dim, seed, sigma)),
        k(random(h.kv_heads * h.head_dim, seed + 1, sigma)),
        v(random(h.kv_heads * (h.value_dim ? h.value_dim : h.head_dim), seed + 2, 1)) {
    spec.heads = h.heads;
    spec.kv_heads = h.kv_heads;
    spec.head_dim = h.head_dim;
    spec.value_dim = h.value_dim;
    spec.query_scale = 1 / std::sqrt(float(h.head_dim));
    spec.window = h.window;
    block.attention = spec;
  }

  /// Makes keys and values such that `type` stores them exactly: rounded, or codes with a scale that is a power of 2.
  void make_exact(DType type) {
    for (Tensor* t : {&k, &v}) {
      auto x = t->as<float>();
      for (size_t i = 0; i < x.size(); ++i) {
        if (type == DType::bf16) x[i] = bf16_to_f32(f32_to_bf16(x[i]));
        if (type == DType::f16) x[i] = f16_to_f32(f32_to_f16(x[i]));
        if (type == DType::i8)
          x[i] = i % size_t(t == &k ? spec.head_dim : spec.v_dim())
                     ? std::clamp(std::nearbyint(x[i] * 32), -126.f, 126.f) / 32
                     : 127.f / 32;
        if (type == DType::f8_e4m3) x[i] = std::clamp(std::nearbyint(x[i] * 4), -15.f, 15.f) / 4;
      }
    }
  }

  std::unique_ptr<KvCache> cache(Backend& dev, DType type) const { return dev.kv_cache({&block, 1}, type); }

  /// The next `n` tokens of the sequence from position `first`.
  void forward(Backend& dev, KvCache& kv, int first, int n, Tensor& y) const {
    const Sequence s{&kv, first, n};
    Tensor part = y.rows(first, first + n);
    dev.attention(q.rows(first, first + n), k.rows(first, first + n), v.rows(first, first + n), {}, {&s, 1}, 0, spec,
                  part);
  }
  Tensor run(Backend& dev, DType type, std::span<const int> chunks) const {
    Tensor y = output();
    const auto kv = cache(dev, type);
    int first = 0;
    for (size_t i = 0; first < tokens; ++i) {
      const int n = std::min(chunks[i % chunks.size()], tokens - first);
      forward(dev, *kv, first, n, y);
      first += n;
    }
    return y;
  }
  Tensor output() const { return Tensor::empty({tokens, spec.out_rows()}, DType::f32); }
  Tensor run(Backend& dev, DType type) const { return run(dev, type, {{tokens}}); }

  AttentionSpec spec;
  BlockSpec block;
  int tokens;
  Tensor q, k, v;

 private:
  Tensor random(int width, unsigned seed, float sigma) const {
    std::mt19937 rng(seed);
    std::normal_distribution<float> dist(0, sigma);
    Tensor t = Tensor::empty({tokens, width}, DType::f32);
    for (float& x : t.as<float>()) x = dist(rng);
    return t;
  }
};

/// Largest error of storing x, one of a head's values of which `top` is the largest magnitude.
double storage_error(DType type, double x, double top) {
  if (type == DType::bf16) return 0x1p-9 * x;
  if (type == DType::f16) return 0x1p-11 * x + 0x1p-25;
  if (type == DType::f8_e4m3) return 0x1p-4 * x + 0x1p-17 * top;  // half of the least that a power of two leaves
  return type == DType::i8 ? 0.5001 * top / 127 : 0;
}

/// Plain attention of one token and query head, and how far a float result may be from it:
///   score    s_j is a chain of d fma over queries that were scaled: (d + 5) u sum |q k|, and what storing k costs
///   weight   2^(s - max) rounds s - max and has 8 u for the exponential and the factors of each page's merge
///   output   at most 256 additions a page to numerator, 20 to denominator, and a merge a page
/// An error e_j of a weight's exponent counts p_j |v_j| (exp(e_j + mean e) - 1).
class Plain {
 public:
  Plain(const Case& c, int token, int head, DType stored)
      : d_(c.spec.head_dim), out_(size_t(c.spec.v_dim())), bound_(out_.size()) {
    const int kv_head = head / (c.spec.heads / c.spec.kv_heads), width = c.spec.kv_rows();
    const float* q = c.q.as<float>().data() + token * c.spec.q_rows() + head * d_;
    const int first = c.spec.window ? std::max(0, token + 1 - *c.spec.window) : 0, pages = token / 256 + 1;
    std::vector<double> s, e;
    for (int j = first; j <= token; ++j) {
      score(q, c.k.as<float>().data() + j * width + kv_head * d_, c, stored, s, e);
      change(c.spec, head, j - token, s.back(), e.back());
    }
    const double max = *std::max_element(s.begin(), s.end());
    double sum = 0, mean = 0;
    for (size_t j = 0; j < s.size(); ++j) {
      e[j] += kU * (max - s[j] + 8 * (pages + 1));
      s[j] = std::exp(s[j] - max);
      sum += s[j];
      mean += s[j] * e[j];
    }
    for (size_t j = 0; j < s.size(); ++j) {
      const float* v = c.v.as<float>().data() + (first + int(j)) * c.spec.v_rows() + kv_head * c.spec.v_dim();
      const double top = top_of(v, c.spec.v_dim()), p = s[j] / sum,
                   relative = std::expm1(e[j] + mean / sum) + (278 + 2 * pages) * kU;
      for (int i = 0; i < c.spec.v_dim(); ++i) {
        out_[size_t(i)] += p * double(v[i]);
        bound_[size_t(i)] +=
            p * (std::abs(double(v[i])) * relative + storage_error(stored, std::abs(double(v[i])), top));
      }
    }
  }
  double operator[](int i) const { return out_[size_t(i)]; }
  double bound(int i) const { return bound_[size_t(i)]; }

 private:
  static double top_of(const float* x, int width) {
    double top = 0;
    for (int i = 0; i < width; ++i) top = std::max(top, std::abs(double(x[i])));
    return top;
  }
  void score(const float* q, const float* k, const Case& c, DType stored, std::vector<double>& s,
             std::vector<double>& e) const {
    double dot = 0, magnitude = 0, storage = 0;
    const double top = top_of(k, d_);
    for (int i = 0; i < d_; ++i) {
      dot += double(q[i]) * double(k[i]);
      magnitude += std::abs(double(q[i]) * double(k[i]));
      storage += std::abs(double(q[i])) * storage_error(stored, std::abs(double(k[i])), top);
    }
    const double scale = double(c.spec.query_scale);
    s.push_back(dot * scale);
    e.push_back(scale * (storage + (d_ + 5) * kU * magnitude));
  }
  // tanh is 1 to 1.2e-7 and steeper nowhere; ALiBi's slope, product and sum round once each.
  static void change(const AttentionSpec& spec, int head, int distance, double& s, double& e) {
    const double cap = double(spec.soft_cap);
    if (cap != 0) s = cap * std::tanh(s / cap), e += 4 * kU * cap;
    if (spec.alibi == 0) return;
    const double n = std::exp2(std::ceil(std::log2(spec.heads))), half = n / 2;
    const bool all = n == spec.heads, even = head < int(half);
    const double i = all ? head + 1 : even ? 2 * (head + 1) : 2 * (head - half) + 1;
    const double bias = double(spec.alibi) * std::exp2(-8 * i / n) * distance;
    s += bias, e += kU * (3 * std::abs(bias) + std::abs(s));
  }
  int d_;
  std::vector<double> out_, bound_;
};

/// Every set that this machine can run.
std::vector<const kernels::KernelSet*> runnable() {
  std::vector<const kernels::KernelSet*> sets;
  for (const kernels::KernelSet* set : kernels::compiled())
    if (kernels::supported(*set)) sets.push_back(set);
  return sets;
}

class Attention : public testing::TestWithParam<std::tuple<const kernels::KernelSet*, DType>> {
 protected:
  const kernels::KernelSet& set() const { return *std::get<0>(GetParam()); }
  DType type() const { return std::get<1>(GetParam()); }
  std::unique_ptr<Backend> backend(ThreadPool& pool) const { return cpu_backend(pool, set()); }

  /// `stored` is the type whose rounding the bound allows for. Returns the largest share of the bound that was used.
  static double compare(const Case& c, const Tensor& y, std::span<const int> tokens, DType stored) {
    double used = 0;
    for (const int t : tokens)
      for (int h = 0; h < c.spec.heads; ++h) {
        const Plain plain(c, t, h, stored);
        for (int i = 0; i < c.spec.v_dim(); ++i) {
          const double got = double(y.as<float>()[size_t(t * c.spec.out_rows() + h * c.spec.v_dim() + i)]);
          const double share = std::abs(got - plain[i]) / (plain.bound(i) + 1e-300);
          EXPECT_LE(share, 1) << "token " << t << " head " << h << " channel " << i << ": " << got << " for "
                              << plain[i];
          if (!(share <= 1)) return share;
          used = std::max(used, share);
        }
      }
    return used;
  }
};

constexpr Heads kShapes[] = {{9, 3, 64, {}},  {8, 2, 128, {}}, {4, 4, 80, {}},  {2, 1, 256, {}},    {3, 1, 24, {}},
                             {7, 1, 40, {}},  {2, 2, 15, {}},  {70, 1, 8, {}},  {4, 2, 64, 1},      {4, 2, 64, 17},
                             {6, 2, 32, 100}, {3, 3, 16, 256}, {2, 1, 64, 300}, {3, 3, 48, {}, 32}, {4, 2, 24, {}, 40}};

// Keys and values that the type holds exactly: what is left is the arithmetic.
TEST_P(Attention, EqualsThePlainOne) {
  ThreadPool pool(2);
  const auto dev = backend(pool);
  for (const Heads& h : kShapes) {
    SCOPED_TRACE(testing::Message() << h.heads << "/" << h.kv_heads << " x " << h.head_dim << " window "
                                    << h.window.value_or(0));
    Case c(h, 600, unsigned(h.head_dim));
    c.make_exact(type());
    const std::vector<int> all{0, 1, 14, 15, 16, 17, 63, 99, 100, 254, 255, 256, 257, 511, 512, 513, 599};
    const std::vector<int> some = kSanitized ? std::vector{0, 300} : all;
    const double used = compare(c, c.run(*dev, type()), some, DType::f32);
    if (h.window != 1) {  // one weight of exactly 1
      EXPECT_GT(used, 1e-3) << "the bound means nothing";
    }
  }
}

TEST_P(Attention, SoftCapAndAlibi) {
  ThreadPool pool(2);
  const auto dev = backend(pool);
  for (const Heads& h : {Heads{8, 2, 32, {}}, {6, 2, 32, {}}, {6, 3, 16, 300}})
    for (const auto& [cap, alibi] : {std::pair(0.f, 1.f), {0.f, 0.125f}, {3.f, 0.f}}) {
      SCOPED_TRACE(testing::Message() << h.heads << " heads, cap " << cap << ", alibi " << alibi);
      Case c(h, 600, unsigned(h.head_dim));
      c.make_exact(type());
      c.spec.soft_cap = cap;
      c.spec.alibi = alibi;
      const double used = compare(c, c.run(*dev, type(), {{1, 256, 300}}), {{0, 20, 255, 256, 599}}, DType::f32);
      EXPECT_GT(used, 1e-3) << "the bound means nothing";
    }
}

// A sink is one more position, whose value is 0 and whose score is given: here of a position that all may see.
TEST_P(Attention, SinksTakeTheirShare) {
  ThreadPool pool(2);
  const auto dev = backend(pool);
  Case c({4, 2, 32, {}}, 300, 17);
  c.make_exact(type());
  c.spec.sinks = true;
  const std::vector<float> sinks = {0.5f, -2, 30, -200};
  const auto kv = c.cache(*dev, type()), plain_kv = c.cache(*dev, type());
  Tensor y = c.output(), plain = c.output();
  const Sequence s{kv.get(), 0, 300}, t{plain_kv.get(), 0, 300};
  dev->attention(c.q, c.k, c.v, sinks, {&s, 1}, 0, c.spec, y);
  dev->attention(c.q, c.k, c.v, {}, {&t, 1}, 0, c.spec, plain);
  // On tiles q is a pair of bfloat16: its products, 32 of rms 4, move a score by 2^-18 of their 70 / sqrt(32).
  const double near = type() == DType::bf16 && set().tiles_bf16 ? 6e-5 : 1e-5;
  for (int token : {0, 15, 299})
    for (size_t head = 0; head < 4; ++head) {
      double sum = 0;
      for (int j = 0; j <= token; ++j) {
        double dot = 0;
        for (size_t i = 0; i < 32; ++i)
          dot += double(c.q.as<float>()[(size_t(token) * 4 + head) * 32 + i]) *
                 double(c.k.as<float>()[(size_t(j) * 2 + head / 2) * 32 + i]);
        sum += std::exp(dot * double(c.spec.query_scale));
      }
      const double share = sum / (sum + std::exp(double(sinks[head])));
      for (size_t i = 0; i < 32; ++i) {
        const size_t at = (size_t(token) * 4 + head) * 32 + i;
        const double want = double(plain.as<float>()[at]) * share;
        EXPECT_NEAR(double(y.as<float>()[at]), want, near * (std::abs(want) + 1e-3)) << token << " " << head;
      }
    }
}

TEST_P(Attention, EveryLength) {
  ThreadPool pool(2);
  const auto dev = backend(pool);
  for (const int n : {1, 2, 15, 16, 17, 31, 32, 33, 255, 256, 257, 511, 512, 513, 1000}) {
    SCOPED_TRACE(n);
    Case c({3, 1, 24, {}}, n, unsigned(n));
    c.make_exact(type());
    compare(c, c.run(*dev, type()), {{n / 2, n - 1}}, DType::f32);
  }
}

// Values as they come: the bound has the error of storing them, which must show.
TEST_P(Attention, StoringCostsWhatItMust) {
  ThreadPool pool(2);
  const auto dev = backend(pool);
  const Case c({4, 2, 64, {}}, 300, 5, 0.5f);
  const Tensor y = c.run(*dev, type());
  EXPECT_GT(compare(c, y, {{0, 1, 20, 299}}, type()), type() == DType::f32 ? 1e-3 : 1e-2);
}

TEST_P(Attention, ChunksGiveTheSameBits) {
  ThreadPool pool(2);
  const auto dev = backend(pool);
  for (const Heads& h : {Heads{9, 3, 64, {}}, {4, 1, 40, 50}, {2, 2, 80, 300}}) {
    const Case c(h, kSanitized ? 270 : 530, 11);
    const Tensor whole = c.run(*dev, type());
    for (const std::vector<int>& chunks :
         {std::vector<int>{1}, {255, 1, 1, 1, 100}, {7, 64, 3}, {256}, {260, 270}, {269, 1, 260}}) {
      const Tensor parts = c.run(*dev, type(), chunks);
      ASSERT_EQ(0, std::memcmp(whole.data(), parts.data(), whole.bytes())) << "chunks of " << chunks[0];
    }
  }
}

// With one thread nothing is split; with seven everything is.
TEST_P(Attention, ThreadsGiveTheSameBits) {
  const Case c({4, 2, 64, 400}, 700, 12);
  Tensor one;
  for (const int threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads);
    const auto dev = backend(pool);
    const Tensor y = c.run(*dev, type(), {{600, 1, 1, 20, 78}});
    if (!one) one = y;
    ASSERT_EQ(0, std::memcmp(one.data(), y.data(), y.bytes())) << threads << " threads";
  }
}

Tensor concatenated(std::span<const Tensor> parts, int64_t width) {
  int64_t rows = 0;
  for (const Tensor& t : parts) rows += t.shape()[0];
  Tensor all = Tensor::empty({rows, width}, DType::f32);
  std::byte* to = all.data();
  for (const Tensor& t : parts) std::memcpy(std::exchange(to, to + t.bytes()), t.data(), t.bytes());
  return all;
}

// A long decode, a prefill, a chunk and a first token in one batch: each as alone.
TEST_P(Attention, SequencesOfABatchDoNotMix) {
  const int before[] = {900, 0, 250, 0}, now[] = {1, 130, 30, 1};
  for (const int threads : {1, 4}) {
    ThreadPool pool(threads);
    const auto dev = backend(pool);
    std::vector<Case> cases;
    std::vector<std::unique_ptr<KvCache>> caches;
    std::vector<Sequence> batch;
    std::vector<Tensor> q, k, v, alone;
    for (int i = 0; i < 4; ++i) {
      const Case& c = cases.emplace_back(Heads{6, 2, 48, 500}, before[i] + now[i], unsigned(20 + i));
      const int end = before[i] + now[i];
      alone.push_back(c.run(*dev, type()).rows(before[i], end));
      caches.push_back(c.cache(*dev, type()));
      Tensor y = Tensor::empty(c.q.shape(), DType::f32);
      if (before[i]) c.forward(*dev, *caches.back(), 0, before[i], y);
      batch.push_back({caches.back().get(), before[i], now[i]});
      q.push_back(c.q.rows(before[i], end)), k.push_back(c.k.rows(before[i], end)),
          v.push_back(c.v.rows(before[i], end));
    }
    const AttentionSpec& spec = cases[0].spec;
    Tensor y = Tensor::empty({162, spec.q_rows()}, DType::f32);
    dev->attention(concatenated(q, spec.q_rows()), concatenated(k, spec.kv_rows()), concatenated(v, spec.kv_rows()), {},
                   batch, 0, spec, y);
    const Tensor want = concatenated(alone, spec.q_rows());
    EXPECT_EQ(0, std::memcmp(want.data(), y.data(), y.bytes())) << threads << " threads";
  }
}

// A token's NaN or infinity reaches those that see it and nobody else, however they are computed together.
TEST_P(Attention, NanStaysWithThoseWhoSeeIt) {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  ThreadPool pool(2);
  const auto dev = backend(pool);
  constexpr int kBad = 37, kWindow = 100;
  for (const float bad : {nan, inf, -inf})
    for (const int where : {0, 1, 2}) {
      Case c({4, 2, 32, kWindow}, 300, 13);
      const Tensor clean = c.run(*dev, type());
      Tensor& t = where == 0 ? c.q : where == 1 ? c.k : c.v;
      t.as<float>()[size_t(kBad * int(t.shape()[1]) + 5)] = bad;  // of head 0
      const Tensor y = c.run(*dev, type());
      for (int token = 0; token < 300; ++token) {
        const bool sees = where == 0 ? token == kBad : token >= kBad && token < kBad + kWindow;
        const auto got = y.rows(token, token + 1).as<float>(), want = clean.rows(token, token + 1).as<float>();
        for (size_t i = 0; i < got.size(); ++i)
          if (!sees || i >= size_t(where ? 64 : 32)) {
            ASSERT_EQ(got[i], want[i]) << where << ": " << token << "," << i;
          }
        // An infinite key weighs all or nothing, by the sign of its score; a scale makes all of its token NaN.
        if (sees && (std::isnan(bad) || has_scales(type()) || where != 1)) {
          EXPECT_FALSE(std::isfinite(got[5])) << where << ": " << token;
        }
      }
    }
}

TEST_P(Attention, SizeIsAnnounced) {
  ThreadPool pool(1);
  const auto dev = backend(pool);
  const Case c({3, 3, 40, {}}, 513, 14);
  const auto kv = c.cache(*dev, type());
  Tensor y = Tensor::empty(c.q.shape(), DType::f32);
  EXPECT_EQ(kv->bytes(), 0);
  EXPECT_EQ(kv->bytes_for(0), 0);
  // Two of 48 channels (40 in whole panels of 16) for 3 heads, and two scales of bytes.
  const int64_t position = 3 * (2 * 48 * int64_t(size_of(type())) + (has_scales(type()) ? 8 : 0));
  int first = 0;
  for (const auto& [positions, pages] : {std::pair(1, 1), {256, 1}, {257, 2}, {513, 3}}) {
    c.forward(*dev, *kv, first, positions - first, y);
    first = positions;
    EXPECT_EQ(kv->bytes(), kv->bytes_for(positions));
    EXPECT_EQ(kv->bytes(), pages * 256 * position);
  }
}

// Values of 24 channels (32) beside keys of 40 (48).
TEST_P(Attention, SizeFollowsBothWidths) {
  ThreadPool pool(1);
  const auto dev = backend(pool);
  const Case c({3, 3, 40, {}, 24}, 2, 14);
  const int64_t position = 3 * ((48 + 32) * int64_t(size_of(type())) + (has_scales(type()) ? 8 : 0));
  EXPECT_EQ(c.cache(*dev, type())->bytes_for(1), 256 * position);
}

// Positions may be written again: a chat goes back to where two prompts part.
TEST_P(Attention, RewrittenPositionsCount) {
  ThreadPool pool(2);
  const auto dev = backend(pool);
  Case c({2, 1, 64, {}}, 300, 15);
  const auto kv = c.cache(*dev, type());
  Tensor y = Tensor::empty(c.q.shape(), DType::f32);
  c.k.as<float>()[size_t(290 * 64)] = std::numeric_limits<float>::quiet_NaN();  // must be forgotten
  c.forward(*dev, *kv, 0, 300, y);
  const Case other({2, 1, 64, {}}, 300, 16);
  other.forward(*dev, *kv, 0, 200, y);
  other.forward(*dev, *kv, 200, 50, y);
  const Tensor fresh = other.run(*dev, type());
  EXPECT_EQ(0, std::memcmp(fresh.data(), y.data(), 250 * 128 * sizeof(float)));
}

std::string name_of_case(const testing::TestParamInfo<Attention::ParamType>& info) {
  return std::string(std::get<0>(info.param)->name) + "_" + std::string(name_of(std::get<1>(info.param)));
}
INSTANTIATE_TEST_SUITE_P(Sets, Attention, testing::Combine(testing::ValuesIn(runnable()), testing::ValuesIn(kTypes)),
                         name_of_case);

TEST(KvType, NamesAndRefuses) {
  EXPECT_EQ(kv_type("", DType::f32), DType::f32);
  EXPECT_EQ(kv_type("f32", DType::bf16), DType::f32);
  EXPECT_EQ(kv_type("f16", DType::bf16), DType::f16);
  EXPECT_EQ(kv_type("bf16", DType::f32), DType::bf16);
  EXPECT_EQ(kv_type("int8", DType::f32), DType::i8);
  EXPECT_EQ(kv_type("fp8", DType::f32), DType::f8_e4m3);
  EXPECT_THROW(kv_type("i8", DType::f32), Error);
}

// Angles are kept between calls: other positions, other frequencies and another width must not get the old ones.
TEST(Rope, TableFollowsPositionsAndFrequencies) {
  ThreadPool pool(2);
  const auto dev = cpu_backend(pool, kernels::select());
  std::mt19937 rng(1);
  for (int round = 0; round < 40; ++round) {
    const int tokens = 1 + int(rng() % 40), first = int(rng() % 3) * 50, half = 4 << rng() % 2;
    std::vector<float> frequencies(static_cast<size_t>(half));
    for (int i = 0; i < half; ++i) frequencies[size_t(i)] = std::pow(0.1f * float(1 + rng() % 3), float(i));
    Tensor x = Tensor::empty({tokens, 2 * 16}, DType::f32);
    for (float& v : x.as<float>()) v = 1;
    const Sequence s[] = {{nullptr, first, tokens / 2}, {nullptr, 7, tokens - tokens / 2}};
    dev->rope(x, s, frequencies, 16, 0, false);
    for (int t = 0; t < tokens; ++t)
      for (int i = 0; i < half; ++i) {
        const float angle = float(t < tokens / 2 ? first + t : 7 + t - tokens / 2) * frequencies[size_t(i)];
        EXPECT_EQ(x.as<float>()[size_t(t * 32 + 16 + i)], std::cos(angle) - std::sin(angle));
      }
  }
}

}  // namespace
}  // namespace awq
