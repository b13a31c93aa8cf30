#pragma once
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <random>

#include "kernels/registry.h"
#include "quantizer/method.h"

namespace awq {

inline Tensor random_tensor(Shape shape, std::mt19937& rng) {
  std::normal_distribution<float> normal;
  Tensor t = Tensor::empty(shape, DType::f32);
  for (float& v : t.as<float>()) v = normal(rng);
  return t;
}

inline BlockWeights random_weights(const BlockSpec& spec, std::mt19937& rng) {
  BlockWeights w{.spec = spec, .at = {}, .bias = {}};
  for (Param p : spec.params()) {
    const auto [rows, cols] = spec.shape(p);
    w.at[p] = random_tensor(cols ? Shape{rows, cols} : Shape{rows}, rng);
  }
  return w;
}

// What a model's blocks look like to a method, without a model.
struct SmallBlock {
  explicit SmallBlock(int kv_heads = 2) {
    const ModelSpec model = find_architecture("LlamaForCausalLM")
                                .parse(nlohmann::json::parse(fmt::format(R"({{
      "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "hidden_size": 128, "intermediate_size": 192,
      "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": {}, "head_dim": 32, "rms_norm_eps": 1e-5,
      "rope_theta": 10000.0, "vocab_size": 32, "max_position_embeddings": 64}})",
                                                                         kv_heads)));
    std::mt19937 rng(9);
    w = random_weights(model.blocks[0], rng);
    hidden = random_tensor({512, 128}, rng);
    for (size_t i = 0; i < hidden.as<float>().size(); ++i) hidden.as<float>()[i] *= i % 128 % 11 == 0 ? 8.f : 1.f;
  }
  Solution solve(const Method& method, const QuantSpec& spec) {
    BlockWeights mine = w;
    for (auto& [p, weight] : mine.at)
      if (is_norm(p.role)) weight = std::get<Tensor>(weight).clone();  // which folding divides
    const Block block = upload(*dev, mine);
    BlockCosts costs;
    return method.solve(mine, block, seen(), {spec, *dev, host, costs, {}});
  }
  BlockCalibration seen() {
    const HiddenStates states{512, 32, [&](int64_t begin, int64_t end) { return hidden.rows(begin, end).clone(); }, {}};
    BlockCosts costs;
    return calibrate(*dev, host, upload(*dev, w), 0, states, options, costs);
  }

  ThreadPool pool{2};
  Host host{pool, kernels::select()};
  std::unique_ptr<Backend> dev = cpu_backend(pool, host.kernels);
  CalibrationOptions options;
  BlockWeights w;
  Tensor hidden;
};

}  // namespace awq
