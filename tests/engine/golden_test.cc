// Tiny random models of every family against transformers' float64 logits (tools/make_golden.py), on every kernel set
// that this machine can run.
#include <gtest/gtest.h>

#include <cstring>
#include <numbers>

#include "engine/golden_fixture.h"

namespace awq {
namespace {

using golden::Expected;
using golden::kTolerance;
using golden::relative_difference;

// A delta net's chain is about twice as long as attention's, of which kTolerance counts 12 operations: q, k and v are
// convolved and activated, q and k brought to length, a state decays and changes, and what is read of it is normalised
// and gated. sqrt(24 * 96) in place of sqrt(12 * 96).
double of_floats(const Model& m) { return kTolerance * (m.spec.recurrent() ? std::numbers::sqrt2 : 1); }

// On tiles of bfloat16 an activation is a pair, off by 2^-18 at most, at four places of each block and before the head,
// and norms after a module may double it; a token alone is not computed there.
double tolerance(const kernels::KernelSet& set, const Model& m) {
  return of_floats(m) + (set.tiles_bf16 ? double(4 * m.blocks.size() + 1) * 0x1p-17 : 0);
}

class Golden : public testing::TestWithParam<std::string> {
 protected:
  // Calls f(device, model) on every set; tests/kernels checks the arithmetic of those that this machine lacks.
  template <class F>
  void on_every_set(int threads, const F& f) {
    const auto checkpoint = Checkpoint::open(golden::folder(GetParam()));
    for (const kernels::KernelSet* set : kernels::compiled()) {
      if (!kernels::supported(*set)) continue;
      SCOPED_TRACE(set->name);
      Device device(threads, set->name);
      f(device, load_model(*device.backend, *checkpoint));
    }
  }
  Expected expected_{GetParam()};
};

TEST_P(Golden, LogitsEqualTheReference) {
  on_every_set(2, [&](Device& device, const Model& model) {
    EXPECT_LT(relative_difference(golden::run(device, model, expected_.ids), expected_.logits),
              tolerance(device.kernels, model));
  });
}

// One token at a time through the cache is the same function as all at once.
TEST_P(Golden, DecodingEqualsPrefill) {
  on_every_set(1, [&](Device& device, const Model& model) {
    const auto kv = device.backend->kv_cache(model.spec.blocks);
    Tensor logits = Tensor::empty(expected_.logits.shape(), DType::f32);
    for (int t = 0; t < int(expected_.ids.size()); ++t) {
      const Sequence s{kv.get(), t, 1, int(expected_.ids.size())};
      const Tensor row = head_logits(*device.backend, model,
                                     hidden_forward(*device.backend, model, {&expected_.ids[size_t(t)], 1}, {&s, 1}));
      std::copy(row.as<float>().begin(), row.as<float>().end(), logits.rows(t, t + 1).as<float>().begin());
    }
    EXPECT_LT(relative_difference(logits, expected_.logits), of_floats(model));
  });
}

// Beyond the context that the model was first trained on. Angles are position times frequency in float, off by 2^-24 of
// up to 8,200 each.
TEST_P(Golden, LongContextsEqualTheReference) {
  const auto length = expected_.file.entries().find("long_length");
  if (length == expected_.file.entries().end()) return;  // no rope scaling to be checked
  const auto n = expected_.file.tensor("long_length").as<int64_t>()[0];
  std::vector<int32_t> text;
  for (int64_t i = 0; i < n; ++i) text.push_back(int32_t(3 + (7 * i * i + 13 * i) % 89));
  Device device(2, "");
  const Model model = load_model(*device.backend, *Checkpoint::open(golden::folder(GetParam())));
  EXPECT_GE(model.spec.max_context, n);
  const auto kv = device.backend->kv_cache(model.spec.blocks);
  prefill(*device.backend, model, *kv, 0, std::span(text).first(size_t(n - 8)), {}, int(n));
  const Sequence s{kv.get(), int(n - 8), 8, int(n)};
  const Tensor last = hidden_forward(*device.backend, model, std::span(text).last(8), {&s, 1});
  EXPECT_LT(
      golden::relative_difference(head_logits(*device.backend, model, last), expected_.file.tensor("long_logits")),
      double(2 * n) * 0x1p-24);
}

// Several sequences of different lengths and positions in one batch: each as if it were alone, to the bit.
TEST_P(Golden, BatchesDoNotMix) {
  const std::vector<int32_t> first(expected_.ids.begin(), expected_.ids.begin() + 23),
      second(expected_.ids.begin() + 23, expected_.ids.end());
  on_every_set(2, [&](Device& device, const Model& model) {
    const auto a = device.backend->kv_cache(model.spec.blocks), b = device.backend->kv_cache(model.spec.blocks);
    const Sequence both[] = {{a.get(), 0, 23}, {b.get(), 0, int(second.size())}};
    const Tensor together =
        head_logits(*device.backend, model, hidden_forward(*device.backend, model, expected_.ids, both));
    const Tensor alone_first = golden::run(device, model, first), alone_second = golden::run(device, model, second);
    EXPECT_EQ(0, std::memcmp(together.data(), alone_first.data(), alone_first.bytes()));
    EXPECT_EQ(0, std::memcmp(together.rows(23, 40).data(), alone_second.data(), alone_second.bytes()));
  });
}

/// Of a model whose last two blocks read the keys of the second and third.
class SharedKeysOfBlocks : public testing::Test {
 protected:
  Device device_{2, ""};
  Backend& dev_ = *device_.backend;
  Model model_ = load_model(dev_, *Checkpoint::open(golden::folder("gemma4")));
};

TEST_F(SharedKeysOfBlocks, AreInTheCacheOnce) {
  std::vector<BlockSpec> own(model_.spec.blocks.begin(), model_.spec.blocks.begin() + 3);
  EXPECT_EQ(dev_.kv_cache(model_.spec.blocks)->bytes_for(1), dev_.kv_cache(own)->bytes_for(1));
}

TEST_F(SharedKeysOfBlocks, ArePassedOnWithPages) {
  std::vector<int32_t> text;
  for (int i = 0; i < 300; ++i) text.push_back(3 + 7 * i % 89);
  const auto whole = dev_.kv_cache(model_.spec.blocks), copied = dev_.kv_cache(model_.spec.blocks);
  const int page = whole->page_positions();
  prefill(dev_, model_, *whole, 0, std::span(text).first(size_t(page)), {}, 0);
  copied->put_page(0, whole->page(0));
  const Sequence a{whole.get(), page, 300 - page}, b{copied.get(), page, 300 - page};
  const auto rest = std::span(text).subspan(size_t(page));
  EXPECT_TRUE(same_bytes(hidden_forward(dev_, model_, rest, {&a, 1}), hidden_forward(dev_, model_, rest, {&b, 1})));
}

TEST_F(SharedKeysOfBlocks, AreMissedWhereNoBlockMadeThem) {
  const auto kv = dev_.kv_cache(model_.spec.blocks);
  const Sequence s{kv.get(), 0, 4};
  Tensor x = Tensor::zeros({4, model_.spec.dim}, DType::f32);
  EXPECT_THROW(block_forward(dev_, model_.blocks[3], {&s, 1}, 1, x), Error);
  EXPECT_THROW(block_forward(dev_, model_.blocks[0], {&s, 1}, 0, x), Error);  // no vectors of tokens
}

INSTANTIATE_TEST_SUITE_P(Families, Golden, testing::ValuesIn(golden::names()), golden::name_of_case);

}  // namespace
}  // namespace awq
