// A quantized head, from `quantize` through the file to logits, against the same values in double precision.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>

#include "engine/runtime.h"

namespace awq {
namespace {

namespace fs = std::filesystem;

constexpr int kGroup = 32, kTokens = 40;

// Untied, and tied to the embedding by default (gemma3), by the config (qwen3) and by that of the language (gemma3-vl).
constexpr const char* kWithHeads[] = {"llama", "gemma3", "qwen3", "gemma3-vl"};

class Head : public testing::Test {
 protected:
  Head() : root_(fs::temp_directory_path() / ("awq-head-test-" + std::to_string(::getpid()))) {
    fs::create_directory(root_);
  }
  ~Head() override { fs::remove_all(root_); }

  static fs::path original(const std::string& family) { return fs::path(AWQ_TEST_DIR) / "golden" / family; }

  fs::path quantized(const std::string& family, int bits) const {
    const fs::path out = root_ / (family + std::to_string(bits));
    quantize(original(family), out, {.method = "rtn", .quantize_head = bits});
    return out;
  }
  fs::path root_;
};

std::vector<int32_t> some_tokens() {
  std::vector<int32_t> t(kTokens);
  for (int i = 0; i < kTokens; ++i) t[size_t(i)] = (i * 37 + 11) % 96;
  return t;
}

Tensor hidden_of(Device& d, const Model& m) {
  const auto kv = d.backend->kv_cache(m.spec.blocks);
  const Sequence s{kv.get(), 0, kTokens};
  return hidden_forward(*d.backend, m, some_tokens(), {&s, 1});
}

double rms_difference(const Tensor& a, const Tensor& b) {
  double sum = 0;
  for (size_t i = 0; i < a.as<float>().size(); ++i)
    sum += std::pow(double(a.as<float>()[i]) - double(b.as<float>()[i]), 2);
  return std::sqrt(sum / double(a.as<float>().size()));
}

struct Product {
  double value = 0, bound = 0;
};

// x w in double, and how far int16 activations may be from it: each is at most half a step of max|x| / 32767 of its
// group away (0.51: the division is rounded too), the sum of codes is exact, and float arithmetic rounds the scales'
// product, the sum's conversion and one multiply-add a group, 2^-24 each.
Product product(std::span<const float> x, std::span<const float> w) {
  Product p;
  double magnitudes = 0;
  for (size_t begin = 0; begin < x.size(); begin += kGroup) {
    double largest = 0, weights = 0;
    for (size_t i = begin; i < begin + kGroup; ++i) {
      p.value += double(x[i]) * double(w[i]);
      magnitudes += std::abs(double(x[i]) * double(w[i]));
      largest = std::max(largest, std::abs(double(x[i])));
      weights += std::abs(double(w[i]));
    }
    p.bound += 0.51 * largest / 32767 * weights;
  }
  p.bound += double(x.size() / kGroup + 3) * 0x1p-24 * magnitudes;
  return p;
}

std::span<const float> row(const Tensor& t, int64_t i) { return t.rows(i, i + 1).as<float>(); }

/// The largest share of the bound that any logit uses.
double share_of_bound(const Tensor& hidden, const Tensor& weights, const Tensor& logits) {
  double share = 0;
  for (int64_t t = 0; t < hidden.shape()[0]; ++t)
    for (int64_t r = 0; r < weights.shape()[0]; ++r) {
      const Product p = product(row(hidden, t), row(weights, r));
      share = std::max(share, std::abs(double(row(logits, t)[size_t(r)]) - p.value) / p.bound);
    }
  return share;
}

TEST_F(Head, LogitsAreThoseOfTheDequantizedHead) {
  for (const std::string family : kWithHeads)
    for (const int bits : {4, 8}) {
      const auto checkpoint = Checkpoint::open(quantized(family, bits));
      const auto head = std::get<QMatrix>(checkpoint->weight(-1, {Role::head}));
      EXPECT_EQ(head.spec, (QuantSpec{.bits = bits, .group_size = kGroup}));
      for (const kernels::KernelSet* set : kernels::compiled()) {
        if (!kernels::supported(*set)) continue;
        SCOPED_TRACE(fmt::format("{} {} bits {}", family, bits, set->name));
        Device device(2, set->name);
        const Model model = load_model(*device.backend, *checkpoint);
        EXPECT_EQ(model.head->arithmetic(1), DType::i16);
        const Tensor hidden = hidden_of(device, model);
        const double share = share_of_bound(hidden, dequantize(head), head_logits(*device.backend, model, hidden));
        EXPECT_LE(share, 1);
        EXPECT_GT(share, 0.05) << "the bound says nothing";
      }
    }
}

// Steps of 8 bits are a 17th of those of 4 (15 / 255), less what rounding the scale to 11 bits adds to them.
TEST_F(Head, EightBitsAreTenTimesCloserThanFour) {
  Device device(2, "");
  for (const std::string family : kWithHeads) {
    const Model plain = load_model(*device.backend, *Checkpoint::open(quantized(family, 0)));
    const Tensor hidden = hidden_of(device, plain), want = head_logits(*device.backend, plain, hidden);
    double difference[2];
    for (const int i : {0, 1}) {
      const Model model = load_model(*device.backend, *Checkpoint::open(quantized(family, i ? 8 : 4)));
      EXPECT_EQ(rms_difference(hidden_of(device, model), hidden), 0) << "blocks and embedding are the same";
      difference[i] = rms_difference(head_logits(*device.backend, model, hidden), want);
    }
    EXPECT_GT(difference[0] / difference[1], 10) << family;
    EXPECT_LT(difference[0] / difference[1], 25) << family;
  }
}

TEST_F(Head, EightBitsKeepTheirInt16ActivationsWhateverTheBlocksHave) {
  ThreadPool pool(1);
  const auto cpu = cpu_backend(pool, kernels::select(), Activations::int8);
  for (const int bits : {4, 8}) {
    const Model model = load_model(*cpu, *Checkpoint::open(quantized("llama", bits)));
    EXPECT_EQ(model.blocks[0][Role::down].arithmetic(1), DType::i8);
    EXPECT_EQ(model.head->arithmetic(1), bits == 4 ? DType::i8 : DType::i16);
  }
}

}  // namespace
}  // namespace awq
