#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>

#include "quantizer/block_fixture.h"

namespace awq {
namespace {

// o and down have 2,048 rows here, twice as many as the ranking looks at.
TEST(Awq, ALayerThatAloneReadsItsInputIsJudgedOnAllOfItsRows) {
  const ModelSpec model = find_architecture("LlamaForCausalLM").parse(nlohmann::json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 64,
    "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0, "vocab_size": 32, "max_position_embeddings": 64})"));
  ThreadPool pool(2);
  const Host host{pool, kernels::select()};
  const auto dev = cpu_backend(pool, host.kernels);
  std::mt19937 rng(4);
  BlockWeights w = random_weights(model.blocks[0], rng);
  const Block block = upload(*dev, w);
  const Tensor hidden = random_tensor({64, 2048}, rng);
  const HiddenStates states{64, 32, [&](int64_t begin, int64_t end) { return hidden.rows(begin, end).clone(); }, {}};
  BlockCosts costs;
  const BlockCalibration calibration = calibrate(*dev, host, block, 0, states, {}, costs);
  const QuantSpec spec{.bits = 4, .group_size = 32};
  const Solution s = find_method("awq").make()->solve(w, block, calibration, {spec, *dev, host, costs, {}});
  int judged = 0;
  for (const GroupResult& g : s.groups) {
    EXPECT_LE(g.loss, g.identity_loss);
    if (g.group.consumers.size() != 1) continue;
    const Tensor& before = w.tensor(g.group.consumers.front());  // folding leaves it as it was
    const Gram& gram = calibration.sites.at(g.group.consumers.front()).gram;
    EXPECT_NEAR(g.identity_loss / QuadraticForm(host, gram).loss(before, dequantize(quantize(before, spec))), 1, 1e-6);
    ++judged;
  }
  EXPECT_EQ(judged, 2);
  // What is reported of each layer, v and up with their divided rows among them, is of the layer as it is stored.
  for (const GroupResult& g : s.groups)
    for (const Param p : g.group.consumers) {
      const Gram& gram = calibration.sites.at(g.group.consumers.front()).gram;
      const Rows folded = rows_of(w, p);
      const double energy = QuadraticForm(host, gram).energy(folded, g.scales),
                   loss = QuadraticForm(host, gram).loss(folded, rows_of(s.matrices.at(p)), g.scales);
      const auto layer = std::ranges::find(s.layers, p, &LayerResult::param);
      ASSERT_NE(layer, s.layers.end());
      EXPECT_NEAR(layer->error / (loss / energy), 1, 1e-4) << name_of(p.role);
    }
}

double mean_error(const Solution& s) {
  double sum = 0;
  for (const LayerResult& l : s.layers) sum += l.error;
  return sum / double(s.layers.size());
}

void expect_no_layer_worse(SmallBlock& block, const char* name, const QuantSpec& spec) {
  const Solution s = block.solve(*find_method(name).make(), spec);
  EXPECT_EQ(s.layers.size(), 7u);
  for (const LayerResult& l : s.layers) {
    EXPECT_LE(l.error, l.rounding_error) << name << ' ' << spec.bits << ' ' << name_of(l.param.role);
    const QMatrix& q = s.matrices.at(l.param);
    EXPECT_EQ(q.spec.group_size, spec.group_size < 0 ? q.cols() : spec.group_size);
    EXPECT_LE(*std::ranges::max_element(q.codes.as<uint8_t>()), spec.levels());
    if (spec.symmetric) {
      EXPECT_EQ(size_t(std::ranges::count(q.zeros.as<uint8_t>(), spec.middle())), q.zeros.bytes());
    }
  }
}

TEST(Methods, NoLayerIsWorseThanRoundedAtAnyNumberOfBits) {
  SmallBlock block;
  for (const char* name : {"awq", "awq+", "gptq"})
    for (int bits : {2, 3, 4, 8}) expect_no_layer_worse(block, name, {.bits = bits, .group_size = 32});
}

TEST(Methods, NoLayerIsWorseThanRoundedInAnyGroupsAndWithSymmetricCodes) {
  SmallBlock block;
  for (const char* name : {"awq", "awq+", "gptq"}) {
    for (int group : {64, QuantSpec::kWholeRow}) expect_no_layer_worse(block, name, {.bits = 4, .group_size = group});
    expect_no_layer_worse(block, name, {.bits = 3, .group_size = 32, .scale_dtype = DType::bf16, .symmetric = true});
  }
}

TEST(Methods, RefinedCodesAreCloserThanThoseOfAwq) {
  SmallBlock block;
  for (int bits : {3, 4}) {
    const QuantSpec spec{.bits = bits, .group_size = 32};
    EXPECT_LT(mean_error(block.solve(*find_method("awq+").make(), spec)),
              0.9 * mean_error(block.solve(*find_method("awq").make(), spec)));
  }
}

}  // namespace
}  // namespace awq
