// Products of every shape, share and order against double arithmetic.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "cuda/executor_set.h"
#include "cuda/product.h"

namespace awq::cuda {
namespace {

class Linear : public testing::Test {
 protected:
  void TearDown() override { executor::set_seed(0); }
};

// All that can go wrong in indices shows at a few dozen rows and columns; the shares' splits depend on how many
// multiprocessors there are.
ProductCase random_case(std::mt19937& rng, int bits, int tokens) {
  const auto pick = [&](std::initializer_list<int> of) { return of.begin()[rng() % of.size()]; };
  ProductCase c{.bits = bits, .tokens = tokens};
  c.rows = pick({8, 16, 24, 32, 40, 72, 136, 264});
  c.group = pick({32, 64, 128, 96, 0});
  c.cols = c.group ? c.group * pick({1, 2, 3, 5}) : pick({8, 40, 64, 72, 200, 328});
  c.half = pick({0, 1}) ? Half::f16 : Half::bf16;
  c.half_scales = pick({0, 1});
  c.offsets = pick({0, 1});
  c.bias = pick({0, 1});
  c.multiprocessors = pick({1, 2, 3, 5, 9});
  c.seed = rng();
  return c;
}

void sweep(int bits, std::initializer_list<int> tokens, int each, unsigned seed, bool grouped = false) {
  std::mt19937 rng(seed);
  double most = 0;
  for (int t : tokens)
    for (int i = 0; i < each; ++i) {
      ProductCase c = random_case(rng, bits, t);
      c.grouped = grouped;
      SCOPED_TRACE(c.text());
      executor::set_seed(rng() % 4);
      const double used = Product(c).check(executor_kernels());
      ASSERT_LE(used, 1);
      most = std::max(most, used);
    }
  EXPECT_GT(most, 1e-3) << "a bound that is never used beyond 0.1 % checks nothing";
}

TEST_F(Linear, FewTokensOf4Bits) { sweep(4, {1, 2, 5, 8, 9, 15, 16}, 12, 1); }
TEST_F(Linear, FewTokensOf8Bits) { sweep(8, {1, 3, 8, 9, 16}, 8, 2); }
TEST_F(Linear, FewTokensOf16Bits) { sweep(16, {1, 3, 8, 9, 16}, 8, 3); }
TEST_F(Linear, SomeTokensOf4Bits) { sweep(4, {17, 32, 33, 50, 64}, 8, 4); }
TEST_F(Linear, SomeTokensOf8Bits) { sweep(8, {17, 32, 33, 64}, 6, 5); }
TEST_F(Linear, SomeTokensOf16Bits) { sweep(16, {17, 32, 33, 64}, 6, 6); }
TEST_F(Linear, ManyTokensOf4Bits) { sweep(4, {65, 128, 130}, 5, 7); }
TEST_F(Linear, ManyTokensOf8Bits) { sweep(8, {65, 129}, 5, 8); }
TEST_F(Linear, ManyTokensOf16Bits) { sweep(16, {65, 127, 200}, 5, 9); }
TEST_F(Linear, GroupsOf4Bits) { sweep(4, {65, 127, 130}, 6, 14, true); }
TEST_F(Linear, GroupsOf8Bits) { sweep(8, {65, 128}, 5, 15, true); }
TEST_F(Linear, GroupsOf16Bits) { sweep(16, {66, 129}, 5, 16, true); }

// Weights are decoded alike, and so a product by groups differs from one by warps in the order of its sums alone. Both
// add products of a unit's columns in the order of steps.
TEST_F(Linear, GroupsAndWarpsMultiplyTheSame) {
  std::mt19937 rng(17);
  for (const int bits : {4, 8, 16}) {
    ProductCase c = random_case(rng, bits, 70);
    c.rows = 136;
    SCOPED_TRACE(c.text());
    Product warps(c);
    warps.run(executor_kernels());
    c.grouped = true;
    Product groups(c);
    groups.run(executor_kernels());
    for (size_t i = 0; i < warps.y.size(); ++i)
      ASSERT_NEAR(groups.y[i], warps.y[i], 1e-5 * c.cols * std::abs(warps.y[i]) + 1e-3);
  }
}

TEST_F(Linear, FloatMatrices) { sweep(32, {1, 7, 8, 9, 33}, 6, 10); }

/// Products of `count` matrices of other rows and groups with as many tokens.
std::vector<Product> some_products(std::mt19937& rng, int bits, int tokens, int count, int multiprocessors) {
  std::vector<Product> all;
  const ProductCase like = random_case(rng, bits, tokens);
  for (int i = 0; i < count; ++i) {
    ProductCase c = random_case(rng, bits, tokens);
    c.half = like.half;
    c.rows += 260, c.group = c.group ? 64 : 0, c.cols = 320;  // blocks enough for tiles that several share
    c.multiprocessors = multiprocessors;
    all.emplace_back(c);
  }
  return all;
}
void run_together(std::vector<Product>& all) {
  LinearsArgs a{};
  for (Product& p : all) {
    a.of[a.count] = p.ready(executor_kernels());
    a.of[a.count++].partial = a.of[0].partial;
  }
  executor_kernels().linear(nullptr, a);
  for (Product& p : all) p.end();
}

// Each has its part of the blocks, and what one leaves unfinished no other finishes.
TEST_F(Linear, ProductsThatBeginTogether) {
  std::mt19937 rng(21);
  double most = 0;
  for (const int bits : {4, 8, 16, 32})
    for (const int tokens : {1, 9, 20, 30, 40, 64, 70})
      for (const int count : {2, 3}) {
        const int multiprocessors = int(2 + rng() % 8);
        SCOPED_TRACE(
            fmt::format("{} bits, {} tokens, {} products, {} multiprocessors", bits, tokens, count, multiprocessors));
        executor::set_seed(1 + rng() % 4);  // blocks of different products in turn
        std::vector<Product> all = some_products(rng, bits, tokens, count, multiprocessors);
        run_together(all);
        for (const Product& p : all) {
          ASSERT_LE(p.worst(), 1);
          most = std::max(most, p.worst());
        }
      }
  EXPECT_GT(most, 1e-3);
}

// Where there are blocks enough for all, each product has as many as it has alone: the same bits.
TEST_F(Linear, TogetherAndAloneAreTheSameBits) {
  std::mt19937 rng(22);
  for (const int bits : {4, 16})
    for (const int tokens : {3, 16, 33}) {
      std::vector<Product> all = some_products(rng, bits, tokens, 3, 500);
      run_together(all);
      for (Product& p : all) {
        const std::vector<float> with_others = p.y;
        p.run(executor_kernels());
        EXPECT_EQ(p.y, with_others);
      }
    }
}

// Matrices of other bits, or more tokens than are read directly, begin one after the other.
TEST_F(Linear, WhatCannotBeginTogetherStillRuns) {
  std::mt19937 rng(23);
  for (const int tokens : {5, 70}) {
    std::vector<Product> all = some_products(rng, 4, tokens, 2, 3);
    all.insert(all.begin() + 1, some_products(rng, tokens == 5 ? 8 : 4, tokens, 1, 3)[0]);
    run_together(all);
    for (const Product& p : all) EXPECT_LE(p.worst(), 1);
  }
}

// Bits, not only bounds: a sum's order is that of blocks and units, not of who came first.
TEST_F(Linear, NoOrderOfBlocksAndWarpsChangesABit) {
  std::mt19937 rng(11);
  for (int tokens : {1, 9, 33, 70})
    for (int bits : {4, 16}) {
      const ProductCase c = random_case(rng, bits, tokens);
      SCOPED_TRACE(c.text());
      Product p(c);
      executor::set_seed(0);
      p.run(executor_kernels());
      const std::vector<float> first = p.y;
      for (uint64_t seed = 1; seed < 5; ++seed) {
        executor::set_seed(seed);
        p.run(executor_kernels());
        EXPECT_EQ(p.y, first);
      }
    }
}

// Alone or in company: a batch says which arithmetic there is, and then its other tokens do not matter.
TEST_F(Linear, ATokenDoesNotDependOnOthers) {
  std::mt19937 rng(12);
  for (int bits : {4, 8, 16})
    for (int batch : {16, 40, 64, 150}) {
      ProductCase c = random_case(rng, bits, batch);
      SCOPED_TRACE(c.text());
      c.batch = batch;
      c.grouped = batch > kMaxDirect && rng() % 2;
      Product all(c);
      all.run(executor_kernels());
      for (int tokens : {1, 7, 33}) {
        if (tokens > batch) continue;
        Product some(c);
        some.keep_tokens(tokens);
        some.run(executor_kernels());
        for (size_t i = 0; i < some.y.size(); ++i) ASSERT_EQ(all.y[i], some.y[i]);
      }
    }
}

// Tokens of very different sizes: each has its own power of two.
TEST_F(Linear, TokensOfAnySizeKeepTheirPrecision) {
  ProductCase c{.rows = 40, .cols = 128, .group = 64, .bits = 4, .tokens = 9};
  Product p(c);
  for (int t = 0; t < c.tokens; ++t)
    for (int k = 0; k < c.cols; ++k) p.x[size_t(t * c.cols + k)] *= std::ldexp(1.f, 20 * (t - 4));
  const double used = p.check(executor_kernels());
  EXPECT_LE(used, 1);
}

TEST_F(Linear, ZerosGiveZerosAndInfinityIsNotHidden) {
  ProductCase c{.rows = 40, .cols = 128, .group = 64, .bits = 4, .tokens = 3};
  Product p(c);
  std::fill_n(p.x.begin(), c.cols, 0.f);
  p.x[size_t(c.cols) + 5] = INFINITY;
  p.x[size_t(2 * c.cols) + 9] = NAN;
  p.run(executor_kernels());
  for (int r = 0; r < c.rows; ++r) {
    EXPECT_EQ(p.y[size_t(r)], 0.f);
    EXPECT_FALSE(std::isfinite(p.y[size_t(c.rows + r)]));
    EXPECT_TRUE(std::isnan(p.y[size_t(2 * c.rows + r)]));
  }
}

TEST_F(Linear, ActivationsAreReorderedAndMultiplied) {
  std::mt19937 rng(13);
  for (int bits : {4, 32}) {
    ProductCase c{.rows = 24, .cols = 96, .group = 32, .bits = bits, .tokens = 3};
    c.order = c.factors = true;
    EXPECT_LE(Product(c).check(executor_kernels()), 1);
  }
}

}  // namespace
}  // namespace awq::cuda
