// Tiny random models of every family against transformers' float64 logits (tools/make_golden.py), on every kernel set
// that this machine can run.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "engine/runtime.h"
#include "io/safetensors.h"

namespace awq {
namespace {

constexpr const char* kFamilies[] = {"llama",   "llama-bias", "llama3", "llama-yarn",
                                     "mistral", "qwen2",      "qwen3",  "gemma3"};

std::filesystem::path golden(const std::string& family) {
  return std::filesystem::path(AWQ_TEST_DIR) / "golden" / family;
}

struct Expected {
  explicit Expected(const std::string& family)
      : file(MappedFile(golden(family) / "expected.safetensors")), logits(file.tensor("logits")) {
    for (int64_t id : file.tensor("ids").as<int64_t>()) ids.push_back(int32_t(id));
  }
  SafetensorsFile file;
  Tensor logits;
  std::vector<int32_t> ids;
};

Tensor run(Device& d, const Model& m, std::span<const int32_t> ids) {
  const auto kv = d.backend->kv_cache(m.spec.blocks);
  const Sequence s{kv.get(), 0, int(ids.size())};
  return head_logits(*d.backend, m, hidden_forward(*d.backend, m, ids, {&s, 1}));
}

double relative_difference(const Tensor& a, const Tensor& b) {
  double largest = 0, difference = 0;
  for (size_t i = 0; i < b.as<float>().size(); ++i) {
    largest = std::max(largest, std::abs(double(b.as<float>()[i])));
    difference = std::max(difference, std::abs(double(a.as<float>()[i]) - double(b.as<float>()[i])));
  }
  return difference / largest;
}

// Float against float64: a block rounds a chain of about 12 operations and sums of up to 96 products, each 2^-24; sums
// average out, so about sqrt(12 * 96) * 2^-24 = 2e-6 for one block, relative to its largest output, and norms keep the
// next block from amplifying it. Twice that is the bound; mistakes in any part move logits by 1e-3 and more.
constexpr double kTolerance = 4e-6;
// On tiles of bfloat16 an activation is a pair, off by 2^-18 at most, at four places of a block and before the head; a
// token alone is not computed there.
constexpr double kPairs = 5 * 0x1p-18;
double tolerance(const kernels::KernelSet& set) { return kTolerance + (set.tiles_bf16 ? kPairs : 0); }

// What this machine can run; tests/kernels checks the arithmetic of the others by emulation.
std::vector<const kernels::KernelSet*> runnable() {
  std::vector<const kernels::KernelSet*> sets;
  for (const kernels::KernelSet* set : kernels::compiled())
    if (kernels::supported(*set)) sets.push_back(set);
  return sets;
}

class Golden : public testing::TestWithParam<std::tuple<const char*, const kernels::KernelSet*>> {};

TEST_P(Golden, LogitsEqualTheReference) {
  const auto [family, set] = GetParam();
  const Expected expected(family);
  Device device(2, set->name);
  const auto checkpoint = Checkpoint::open(golden(family));
  const Model model = load_model(*device.backend, *checkpoint);
  EXPECT_LT(relative_difference(run(device, model, expected.ids), expected.logits), tolerance(*set));
}

// One token at a time through the cache is the same function as all at once.
TEST_P(Golden, DecodingEqualsPrefill) {
  const auto [family, set] = GetParam();
  const Expected expected(family);
  Device device(1, set->name);
  const auto checkpoint = Checkpoint::open(golden(family));
  const Model model = load_model(*device.backend, *checkpoint);
  const auto kv = device.backend->kv_cache(model.spec.blocks);
  Tensor logits = Tensor::empty(expected.logits.shape(), DType::f32);
  for (int t = 0; t < int(expected.ids.size()); ++t) {
    const Sequence s{kv.get(), t, 1};
    const Tensor row = head_logits(*device.backend, model,
                                   hidden_forward(*device.backend, model, {&expected.ids[size_t(t)], 1}, {&s, 1}));
    std::copy(row.as<float>().begin(), row.as<float>().end(), logits.rows(t, t + 1).as<float>().begin());
  }
  EXPECT_LT(relative_difference(logits, expected.logits), kTolerance);
}

// Several sequences of different lengths and positions in one batch: each as if it were alone, to the bit.
TEST_P(Golden, BatchesDoNotMix) {
  const auto [family, set] = GetParam();
  const Expected expected(family);
  Device device(2, set->name);
  const auto checkpoint = Checkpoint::open(golden(family));
  const Model model = load_model(*device.backend, *checkpoint);
  const std::vector<int32_t> first(expected.ids.begin(), expected.ids.begin() + 23),
      second(expected.ids.begin() + 23, expected.ids.end());
  const auto a = device.backend->kv_cache(model.spec.blocks), b = device.backend->kv_cache(model.spec.blocks);
  const Sequence both[] = {{a.get(), 0, 23}, {b.get(), 0, int(second.size())}};
  const Tensor together =
      head_logits(*device.backend, model, hidden_forward(*device.backend, model, expected.ids, both));
  const Tensor alone_first = run(device, model, first), alone_second = run(device, model, second);
  EXPECT_EQ(0, std::memcmp(together.data(), alone_first.data(), alone_first.bytes()));
  EXPECT_EQ(0, std::memcmp(together.rows(23, 40).data(), alone_second.data(), alone_second.bytes()));
}

std::string name_of_case(const testing::TestParamInfo<Golden::ParamType>& info) {
  std::string n = std::string(std::get<0>(info.param)) + "_" + std::get<1>(info.param)->name;
  for (char& c : n)
    if (c == '-') c = '_';
  return n;
}

INSTANTIATE_TEST_SUITE_P(Families, Golden,
                         testing::Combine(testing::ValuesIn(kFamilies), testing::ValuesIn(runnable())), name_of_case);

// Folding random scales into any group of any family changes nothing but rounding: scales in [1/4, 4] multiply and
// divide, each rounding 2^-24, and the sums that follow are those of the logits test.
TEST(Fold, ChangesNoLogits) {
  Device device(2, "");
  for (const char* family : kFamilies) {
    SCOPED_TRACE(family);
    const Expected expected(family);
    const auto checkpoint = Checkpoint::open(golden(family));
    std::mt19937 rng(5);
    std::uniform_real_distribution<float> exponent(-2, 2);
    for (size_t g = 0; g < scale_groups(checkpoint->spec().blocks[0]).size(); ++g) {
      Model model = load_model(*device.backend, *checkpoint);
      for (size_t i = 0; i < model.blocks.size(); ++i) {
        BlockWeights w = load_float_block(*checkpoint, int(i), device.pool);
        const ScaleGroup group = scale_groups(w.spec)[g];
        std::vector<float> s(size_t(w.spec.shape(group.consumers[0]).second));
        for (float& v : s) v = std::exp2(exponent(rng));
        const size_t head = size_t(group.head_dim), span = head * size_t(group.tied_heads);
        if (group.tied_heads > 1)
          for (size_t c = 0; c < s.size(); ++c) s[c] = s[c / span * span + c % head];
        fold(w, group, s);
        model.blocks[i] = upload(*device.backend, w, true);  // as tolerances of f32 want
      }
      EXPECT_LT(relative_difference(run(device, model, expected.ids), expected.logits), kTolerance) << "group " << g;
    }
  }
}

}  // namespace
}  // namespace awq
