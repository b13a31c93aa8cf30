#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "base/numeric.h"
#include "base/parallel.h"
#include "kernels/registry.h"
#include "model/backend.h"

namespace awq {
namespace {

Tensor random_matrix(int64_t rows, int64_t cols, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> dist;
  Tensor t = Tensor::empty({rows, cols}, DType::f32);
  for (float& v : t.as<float>()) v = dist(rng);
  return t;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.bytes() == b.bytes() && std::memcmp(a.data(), b.data(), a.bytes()) == 0;
}

class LinearTest : public testing::Test {
 protected:
  ThreadPool pool{2};

  std::unique_ptr<Backend> backend(Activations a = Activations::int16) {
    return cpu_backend(pool, kernels::select(), a);
  }
  /// rows x 256, random codes in groups of `group`.
  static QMatrix codes(int64_t rows, int bits, int group, unsigned seed) {
    return quantize(random_matrix(rows, 256, seed), {.bits = bits, .group_size = group});
  }
  static Tensor product(Backend& dev, const Weight& w, const Tensor* bias, const Tensor& x) {
    const auto f = dev.linear(w, bias);
    Tensor y = dev.empty({x.shape()[0], f->rows()});
    (*f)(x, y);
    return y;
  }
};

// Layers that share an input give the bits that each gives alone, whether or not they can share its preparation.
TEST_F(LinearTest, TogetherAsAlone) {
  const auto dev = backend();
  const Tensor bias = random_matrix(1, 40, 1).reshaped({40});
  const std::vector<Weight> alike = {codes(40, 4, 64, 2), codes(100, 4, 64, 3), codes(17, 8, 64, 4)};
  const std::vector<Weight> mixed = {codes(40, 4, 64, 2), codes(100, 4, 128, 3), random_matrix(17, 256, 4)};
  for (const auto& weights : {alike, mixed})
    for (const int64_t tokens : {1, 7, 40}) {
      const Tensor x = random_matrix(tokens, 256, 5);
      std::vector<std::unique_ptr<Linear>> layers;
      std::vector<const Linear*> f;
      std::vector<Tensor> y;
      for (size_t i = 0; i < weights.size(); ++i) {
        layers.push_back(dev->linear(weights[i], i == 0 ? &bias : nullptr));
        f.push_back(layers.back().get());
        y.push_back(dev->empty({tokens, f.back()->rows()}));
      }
      dev->apply(f, x, y, x.shape()[0]);
      for (size_t i = 0; i < weights.size(); ++i)
        EXPECT_TRUE(same_bits(y[i], product(*dev, weights[i], i == 0 ? &bias : nullptr, x))) << i << " " << tokens;
    }
}

TEST_F(LinearTest, BiasIsAddedToEveryToken) {
  const auto dev = backend();
  const QMatrix w = codes(40, 4, 64, 1);
  const Tensor bias = random_matrix(1, 40, 2).reshaped({40}), x = random_matrix(9, 256, 3);
  const Tensor with = product(*dev, w, &bias, x), without = product(*dev, w, nullptr, x);
  for (size_t i = 0; i < 9 * 40; ++i)
    ASSERT_EQ(with.as<float>()[i], without.as<float>()[i] + bias.as<float>()[i % 40]) << i;
}

// bf16 is what int16 gives for rounded activations.
TEST_F(LinearTest, Bf16RoundsActivationsFirst) {
  const Tensor x = random_matrix(9, 256, 1), rounded = x.to(DType::bf16).to(DType::f32);
  const QMatrix w = codes(40, 4, 64, 2);
  const Tensor y = product(*backend(Activations::bf16), w, nullptr, x);
  EXPECT_TRUE(same_bits(y, product(*backend(), w, nullptr, rounded)));
  EXPECT_FALSE(same_bits(y, product(*backend(), w, nullptr, x)));
}

// Tiles, where the CPU has them, round weights too; otherwise many tokens are as few. Each rounding is 2^-9 at most.
TEST_F(LinearTest, Bf16OfManyTokens) {
  const Tensor x = random_matrix(130, 256, 1);
  const QMatrix w = codes(40, 4, 64, 2);
  const auto dev = backend(Activations::bf16);
  const bool tiles = dev->linear(Weight(w), nullptr)->arithmetic(130) == DType::bf16;
  EXPECT_EQ(tiles, kernels::select().tiles_int != nullptr);
  const Tensor y = product(*dev, w, nullptr, x), weights = dequantize(w);
  double largest = 0;
  for (int64_t t = 0; t < 130; ++t)
    for (int64_t r = 0; r < 40; ++r) {
      double exact = 0, magnitude = 0;
      for (int64_t c = 0; c < 256; ++c) {
        const double p = double(x.as<float>()[size_t(t * 256 + c)]) * double(weights.as<float>()[size_t(r * 256 + c)]);
        exact += p;
        magnitude += std::abs(p);
      }
      const double error = std::abs(y.as<float>()[size_t(t * 40 + r)] - exact);
      ASSERT_LE(error, (tiles ? 2 : 1) * 0x1.02p-9 * magnitude) << t << "," << r;
      largest = std::max(largest, error / magnitude);
    }
  EXPECT_GT(largest, 0x1p-13);
}

// The exact product of the weights with x, and how far half a step of `levels` in each activation can lead from it.
struct Exact {
  double value = 0, reach = 0;
};
Exact exact(const Tensor& w, const Tensor& x, int64_t t, int64_t r, int group, double levels) {
  Exact e;
  for (int64_t c = 0; c < 256; ++c) {
    double top = 0;
    for (int64_t i = c / group * group; i < c / group * group + group; ++i)
      top = std::max(top, std::abs(double(x.as<float>()[size_t(t * 256 + i)])));
    const double weight = double(w.as<float>()[size_t(r * 256 + c)]);
    e.value += weight * double(x.as<float>()[size_t(t * 256 + c)]);
    e.reach += std::abs(weight) * top / levels / 2;
  }
  return e;
}

// 8-bit weights keep 16-bit activations whatever is asked for. The roundings of codes and sums are below 1 % of a step.
TEST_F(LinearTest, ActivationsHaveTheirLevels) {
  const Tensor x = random_matrix(9, 256, 1);
  for (const auto& [activations, bits, levels] :
       {std::tuple(Activations::int16, 4, 32767.), {Activations::int8, 4, 127.}, {Activations::int8, 8, 32767.}}) {
    const QMatrix w = codes(40, bits, 64, 2);
    const auto dev = backend(activations);
    EXPECT_EQ(dev->linear(Weight(w), nullptr)->arithmetic(9), levels < 1000 ? DType::i8 : DType::i16);
    const Tensor y = product(*dev, w, nullptr, x), floats = dequantize(w);
    double largest = 0;
    for (int64_t t = 0; t < 9; ++t)
      for (int64_t r = 0; r < 40; ++r) {
        const Exact e = exact(floats, x, t, r, 64, levels);
        const double error = std::abs(double(y.as<float>()[size_t(t * 40 + r)]) - e.value);
        ASSERT_LE(error, 1.01 * e.reach) << t << "," << r;
        largest = std::max(largest, error / e.reach);
      }
    EXPECT_GT(largest, 0.02);  // the sum of 256 independent halves is about 1/28 of their reach
  }
}

/// Random codes of `bits` bits with scales of any sign and offsets that no zero point stands for, some groups constant.
QMatrix with_random_offsets(int64_t rows, int bits, int group, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> dist;
  QMatrix q = QMatrix::empty({rows, 256}, {.bits = bits, .group_size = group, .offsets = true});
  for (uint8_t& c : q.codes.as<uint8_t>()) c = uint8_t(rng() % (1u << bits));
  for (float& s : q.scales.as<float>()) s = rng() % 8 ? f16_to_f32(f32_to_f16(dist(rng) / float(1 << bits))) : 0.f;
  for (float& o : q.offsets.as<float>()) o = dist(rng);
  return q;
}

// All kinds of activations and every width, with an order of columns, against exact products of what dequantize gives.
// Activations are multiplied by powers of two from 1/2 to 2, or not: half a step of them is that of the largest of a
// group, so 4 times as much of the weight that has the smallest.
TEST_F(LinearTest, OffsetsOrderAndInputs) {
  const Tensor x = random_matrix(9, 256, 1);
  for (const int bits : {2, 4, 5, 8})
    for (const auto& [ordered, multiplied] : {std::pair(false, false), {true, false}, {false, true}, {true, true}}) {
      QMatrix q = with_random_offsets(40, bits, 32, 7);
      if (multiplied) {
        q.inputs = Tensor::empty({256}, DType::f32);
        for (int i = 0; i < 256; ++i) q.inputs.as<float>()[size_t(i)] = std::ldexp(1.f, i * 7 % 3 - 1);
      }
      if (ordered) {
        q.order = Tensor::empty({256}, DType::i32);
        for (int i = 0; i < 256; ++i) q.order.as<int32_t>()[size_t(i)] = i * 77 % 256;
      }
      const Tensor y = product(*backend(), q, nullptr, x), w = dequantize(q);
      for (int64_t t = 0; t < 9; ++t)
        for (int64_t r = 0; r < 40; ++r) {
          double value = 0, magnitude = 0;
          for (int64_t c = 0; c < 256; ++c) {
            const double p = double(w.as<float>()[size_t(r * 256 + c)]) * double(x.as<float>()[size_t(t * 256 + c)]);
            value += p;
            magnitude += std::abs(double(w.as<float>()[size_t(r * 256 + c)]));
          }
          // Half a step of activations of at most 4.5, 2^-16 of that each, and roundings of 16 sums of at most that.
          ASSERT_NEAR(double(y.as<float>()[size_t(t * 40 + r)]), value,
                      magnitude * (multiplied ? 4 : 1) * 4.5 * 0x1p-15)
              << bits << " " << t << "," << r;
        }
    }
}

// Offsets that are multiples of the scale need no second product.
TEST_F(LinearTest, OffsetsThatAreZeroPoints) {
  const QMatrix q = codes(40, 4, 32, 3);
  QMatrix exact = with_offsets(q);
  for (size_t g = 0; g < exact.offsets.as<float>().size(); ++g)
    exact.offsets.as<float>()[g] = -(float(q.zeros.as<uint8_t>()[g]) * q.scales.as<float>()[g]);
  const Tensor x = random_matrix(9, 256, 1);
  const auto dev = backend();
  EXPECT_TRUE(same_bits(product(*dev, exact, nullptr, x), product(*dev, q, nullptr, x)));
  EXPECT_EQ(dev->linear(Weight(exact), nullptr)->bytes(), dev->linear(Weight(q), nullptr)->bytes());
}

}  // namespace
}  // namespace awq
