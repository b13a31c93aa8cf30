// Weights of tokens against gradients that transformers computed in float64 (tools/make_gradients.py).
#include "quantizer/weigh.h"

#include <unistd.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/golden_fixture.h"
#include "io/file.h"
#include "quantizer/block_fixture.h"
#include "quantizer/float_set.h"
#include "quantizer/quantize.h"

namespace awq {
namespace {

namespace fs = std::filesystem;

const nlohmann::json& reference() {
  static const nlohmann::json all =
      nlohmann::json::parse(read_text(fs::path(AWQ_TEST_DIR) / "quantizer" / "fixtures" / "gradients.json"));
  return all;
}

class TokenWeightsTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  std::vector<std::vector<int32_t>> tokens() const {
    std::vector<std::vector<int32_t>> all;
    for (int s = 0; s < sequences_; ++s) {
      all.emplace_back();
      for (int t = 0; t < length_; ++t) all.back().push_back(int32_t((s * 131 + t * 17 + 5) % source_->spec().vocab));
    }
    return all;
  }

  struct Stopped {};
  using Weights = std::vector<std::map<Site, std::vector<float>>>;  // by blocks

  /// By a job that ends after `stop` steps and goes on.
  Weights weighed(const kernels::KernelSet& set, int threads, int stop, int at_once) {
    ThreadPool pool(threads);
    const auto dev = cpu_backend(pool, set);
    HiddenFiles files(folder_, int64_t(sequences_) * length_, length_, source_->spec().dim);
    embed_tokens(*dev, *source_, tokens(), files);
    TokenWeights weights(folder_, source_->spec(), files.tokens(), at_once);
    HiddenStates states = files.around(0, true);
    states.read = [this, read = states.read](int64_t begin, int64_t end) {
      if (at_read_) at_read_(begin);
      return read(begin, end);
    };
    int done_before = 0;
    WeighFlow flow{.source = *source_,
                   .dev = *dev,
                   .host = {pool, set},
                   .hidden = states,
                   .folder = folder_,
                   .at_once = at_once,
                   .progress = {},
                   .finished = [&](int done) {
                     done_before = done;
                     if (done == stop && !at_read_) throw Stopped();
                   }};
    try {
      weigh(flow, weights, 0);
    } catch (const Stopped&) {
      flow.finished = {};
      weigh(flow, weights, done_before);
    }
    Weights all;
    for (int b = 0; b < int(source_->spec().blocks.size()); ++b) all.push_back(weights.of(b));
    return all;
  }

  /// Roots of the reference's squares, over their mean.
  static std::vector<float> roots(const nlohmann::json& squares) {
    std::vector<float> w;
    double sum = 0;
    for (double v : squares) w.push_back(float(std::sqrt(v))), sum += std::sqrt(v);
    for (float& v : w) v = float(double(v) * double(w.size()) / sum);
    return w;
  }

  int sequences_ = reference().at("sequences"), length_ = reference().at("length");
  std::function<void(int64_t begin)> at_read_;  // of the first block's input; throws Stopped in place of a kill
  fs::path folder_ = fs::temp_directory_path() / fmt::format("awq-weigh-{}-{}", ::getpid(), GetParam());
  std::unique_ptr<Checkpoint> source_ = Checkpoint::open(golden::folder(GetParam()));
};

// Gradients pass up to three blocks and the head in f32, each a chain of about 30 operations both ways, and shares of
// attention that were rounded: sqrt(100 * 96) * 2^-24 = 6e-6 of the largest; of small ones more. A part that is missing
// moves them by percents.
TEST_P(TokenWeightsTest, AreTheReferences) {
  const Weights weights = weighed(float_set(), 2, -1, sequences_ * length_);
  const nlohmann::json& squares = reference().at("squares").at(GetParam());
  ASSERT_EQ(squares.size(), source_->spec().blocks.size());
  for (int b = 0; b < int(squares.size()); ++b) {
    const auto& got = weights[size_t(b)];
    const std::vector<ScaleGroup> groups = scale_groups(source_->spec().blocks[size_t(b)]);
    ASSERT_EQ(squares[size_t(b)].size(), groups.size());
    for (size_t g = 0; g < groups.size(); ++g) {
      const std::vector<float> expected = roots(squares[size_t(b)][g]), &w = got.at(groups[g].consumers.front());
      ASSERT_EQ(w.size(), expected.size());
      for (size_t t = 0; t < w.size(); ++t)
        EXPECT_NEAR(w[t], expected[t], 2e-4 * expected[t] + 2e-5) << "block " << b << " group " << g << " token " << t;
    }
  }
}

TEST_P(TokenWeightsTest, AreTheSameForAnyThreadsAndWhereverAJobStopped) {
  const Weights expected = weighed(kernels::select(), 1, -1, sequences_ * length_);
  for (int stop = 1; stop <= 2 * int(expected.size()) + 1; ++stop)
    EXPECT_EQ(weighed(kernels::select(), 2, stop, sequences_ * length_), expected) << stop;
  EXPECT_FALSE(fs::exists(folder_ / "weigh-states"));
}

TEST_P(TokenWeightsTest, AreTheSameWhereSequencesAreWeighedOneByOne) {
  sequences_ = 30;  // together they come in two pieces
  const Weights together = weighed(float_set(), 2, -1, sequences_ * length_);
  EXPECT_EQ(weighed(float_set(), 2, 2 * int(together.size()) + 2, length_), together);
}

// A block is killed between two pieces of the text, of 500 tokens and 100: what it reads is not what it writes.
TEST_P(TokenWeightsTest, AreTheSameWhereAJobStoppedWithinABlock) {
  sequences_ = 30;
  const Weights expected = weighed(float_set(), 2, -1, sequences_ * length_);
  int reads = 0;
  at_read_ = [&](int64_t begin) {
    if (begin && ++reads == 2) throw Stopped();  // the first is of the way forward
  };
  EXPECT_EQ(weighed(float_set(), 2, -1, sequences_ * length_), expected);
  EXPECT_EQ(reads, 3);
}

std::vector<std::string> names() {
  std::vector<std::string> all;
  for (const auto& [name, squares] : reference().at("squares").items()) all.push_back(name);
  return all;
}

INSTANTIATE_TEST_SUITE_P(Families, TokenWeightsTest, testing::ValuesIn(names()), golden::name_of_case);

}  // namespace
}  // namespace awq
