// Gradients against differences of what a block computes, for a block of every tiny model.
#include "quantizer/tape.h"

#include <cmath>

#include "awq/error.h"

#include "engine/golden_fixture.h"
#include "formats/load.h"
#include "quantizer/block_fixture.h"
#include "quantizer/float_set.h"

namespace awq {
namespace {

double dot(const Tensor& a, const Tensor& b) {
  double sum = 0;
  for (size_t i = 0; i < a.as<float>().size(); ++i) sum += double(a.as<float>()[i]) * double(b.as<float>()[i]);
  return sum;
}

class GradientsOfFamily : public testing::TestWithParam<std::string> {
 protected:
  static constexpr int kLength = 24;
  static constexpr int64_t kTokens = 2 * kLength;

  /// dot(output, weights) at x + by * along.
  double value(const Block& block, const Tensor& x, const Tensor& along, double by, const Tensor& weights) {
    Tensor y = x.clone();
    for (size_t i = 0; i < y.as<float>().size(); ++i) y.as<float>()[i] += float(by * double(along.as<float>()[i]));
    run_sequences(*dev_, block, kLength, y);
    return dot(y, weights);
  }

  /// By central differences at two steps (Richardson), which leaves an error of the fourth power of the step.
  double difference(const Block& block, const Tensor& x, const Tensor& along, const Tensor& weights) {
    const double step = 0.006 * std::sqrt(dot(x, x) / dot(along, along));
    const auto at = [&](double h) {
      return (value(block, x, along, h, weights) - value(block, x, along, -h, weights)) / (2 * h);
    };
    return (4 * at(step / 2) - at(step)) / 3;
  }

  ThreadPool pool_{2};
  Host host_{pool_, float_set()};
  std::unique_ptr<Backend> dev_ = cpu_backend(pool_, host_.kernels);
  std::unique_ptr<Checkpoint> source_ = Checkpoint::open(golden::folder(GetParam()));
};

TEST_P(GradientsOfFamily, AreWhatDifferencesSay) {
  for (int i = 0; i < int(source_->spec().blocks.size()); ++i) {
    SCOPED_TRACE(i);
    const BlockWeights w = load_float_block(*source_, i, pool_);
    std::mt19937 rng(7);
    const Tensor x = random_tensor({kTokens, w.spec.dim}, rng), weights = random_tensor(x.shape(), rng);
    Tape tape(*dev_, host_);
    const Block taped = upload(tape, w, DType::f32), plain = upload(*dev_, w, DType::f32);
    Tensor y = x.clone();
    tape.begin(y);
    if (!Tape::knows(w.spec)) {  // nothing is left out of a gradient without a word
      if (!w.spec.shared_keys || w.spec.own_width || w.spec.borrows_keys()) {
        EXPECT_THROW(run_sequences(tape, taped, kLength, y), Error);
      }
      continue;
    }
    run_sequences(tape, taped, kLength, y);
    const Tensor g = tape.back(y, weights);
    const Tensor any = random_tensor(x.shape(), rng);
    for (const Tensor* along : {&g, &any}) {
      const double expected = difference(plain, x, *along, weights), got = dot(g, *along);
      EXPECT_NEAR(got, expected, 3e-3 * std::sqrt(dot(g, g) * dot(*along, *along)))
          << (along == &any ? "a random direction" : "its own direction");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, GradientsOfFamily, testing::ValuesIn(golden::names()), golden::name_of_case);

}  // namespace
}  // namespace awq
