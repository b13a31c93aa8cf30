#include "bench/cost.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "bench/models.h"
#include "bench/shapes.h"

namespace awq {
namespace {

ModelSpec spec_of(std::string_view shape) {
  const nlohmann::json config = shape_config(shape);
  return find_architecture(config["architectures"][0].get<std::string>()).parse(config);
}

int64_t parameters(const ModelSpec& m) {
  int64_t n = int64_t(m.vocab) * m.dim * (m.tied_embeddings ? 1 : 2) + m.dim;
  for (const BlockSpec& b : m.blocks)
    for (const Param p : b.params()) n += b.shape(p).first * std::max<int64_t>(1, b.shape(p).second);
  return n;
}

// As the models' authors count them.
TEST(Shapes, HaveTheParametersOfTheirModels) {
  EXPECT_EQ(parameters(spec_of("smollm2-135m")), 134515008);
  EXPECT_EQ(parameters(spec_of("llama-3.2-1b")), 1235814400);
  EXPECT_EQ(parameters(spec_of("qwen3-4b")), 4022468096);
  EXPECT_EQ(parameters(spec_of("llama-2-7b")), 6738415616);
  EXPECT_EQ(parameters(spec_of("llama-3.1-8b")), 8030261248);
  EXPECT_EQ(shape_names().size(), 5U);
}

TEST(Shapes, AnUnknownOneNamesThoseThereAre) {
  try {
    shape_config("llama-9");
    FAIL();
  } catch (const Error& e) {
    for (const std::string_view name : shape_names())
      EXPECT_NE(std::string(e.what()).find(name), std::string::npos) << e.what();
  }
}

// Llama 3.2 1B by hand. Matrices of a block: q and o 2 * 2048 * 2048, k and v 2 * 512 * 2048, MLP 3 * 8192 * 2048.
constexpr int64_t kBlock = 60817408, kHead = 128256 * 2048;

Cost llama() { return {.spec = spec_of("llama-3.2-1b"), .kv = DType::f16, .weights = 1000, .embed_row = 4096}; }

TEST(Cost, KeysAndValuesOfLlama1B) {
  // 16 blocks, keys and values, 8 heads of 64 channels, 2 bytes: 32,768 bytes a position.
  EXPECT_EQ(llama().kv_bytes(0), 32768);
  EXPECT_EQ(llama().kv_bytes(511), 512 * 32768);
  EXPECT_EQ(llama().decode_bytes(511, 1), 1000 + 4096 + 512 * 32768);
  EXPECT_EQ(llama().decode_bytes(511, 8), 1000 + 8 * (4096 + 512 * 32768));
  EXPECT_EQ(llama().prefill_bytes(512), 1000 + 512 * 4096 + 512 * 32768);
  Cost f32 = llama();
  f32.kv = DType::f32;
  EXPECT_EQ(f32.kv_bytes(0), 65536);
}

TEST(Cost, AWindowBoundsWhatIsRead) {
  Cost c = llama();
  c.spec.blocks[0].attention.window = 100;
  EXPECT_EQ(c.kv_bytes(98), 99 * 32768);
  EXPECT_EQ(c.kv_bytes(999), 15 * 1000 * 2048 + 100 * 2048);
  EXPECT_EQ(c.attention_flops(999, 1), 4.0 * 2048 * (15 * 1000 + 100));
}

TEST(Cost, OperationsOfLlama1B) {
  EXPECT_EQ(llama().decode_flops(1), 2.0 * (16 * kBlock + kHead));
  EXPECT_EQ(llama().decode_flops(8), 8 * llama().decode_flops(1));
  EXPECT_EQ(llama().prefill_flops(512), 2.0 * (512 * 16.0 * kBlock + kHead));
  // 32 heads of 64 channels, q k^T and p v, the first token sees 1 position and the second 2.
  EXPECT_EQ(llama().attention_flops(0, 2), 16 * 4.0 * 2048 * 3);
}

// A group of 128: 64 bytes of codes, 2 of its scale, half of one for its zero point.
TEST(Cost, StoredBytesOfAGroup) {
  ThreadPool pool(2);
  const auto model = random_model(shape_config("llama-3.2-1b"), groups_of(128), {}, 0, pool);
  EXPECT_EQ(stored_bytes(model->weight(0, {Role::k})), int64_t(512 * 16 * 66.5));
  EXPECT_EQ(stored_bytes(Tensor::empty({3, 5}, DType::bf16)), 30);
}

TEST(Cost, CountsEverythingThatIsLoadedButTheTable) {
  ThreadPool pool(2);
  const auto cpu = cpu_backend(pool, kernels::select());
  const auto matrices = int64_t(3 * (2 * 128 * 128 + 2 * 64 * 128 + 3 * 256 * 128) / 32 * 18.5);
  const int64_t norms = 7 * 128 * 4, table = 300 * 128 * 2;
  for (const bool tied : {false, true}) {
    nlohmann::json config = tiny_config();
    config["tie_word_embeddings"] = tied;
    const auto model = random_model(config, groups_of(32), {}, 0, pool);
    const CountedCheckpoint counted(*model);
    load_model(*cpu, counted);
    const Cost cost = counted.cost(DType::f16);
    EXPECT_EQ(cost.weights, matrices + norms + table) << tied;
    EXPECT_EQ(cost.embed_row, 256) << tied;
  }
}

// A group of 32 of 8 bits: 32 bytes of codes, 2 of its scale, 1 for its zero point.
TEST(Cost, AQuantizedHeadIsReadInsteadOfATiedTable) {
  ThreadPool pool(2);
  const auto cpu = cpu_backend(pool, kernels::select());
  const auto weights = [&](const std::optional<QuantSpec>& head) {
    nlohmann::json config = tiny_config();
    config["tie_word_embeddings"] = true;
    const auto model = random_model(config, groups_of(32), head, 0, pool);
    const CountedCheckpoint counted(*model);
    load_model(*cpu, counted);
    EXPECT_EQ(counted.cost(DType::f16).embed_row, 256);
    return counted.cost(DType::f16).weights;
  };
  const int64_t rest = weights({}) - 300 * 128 * 2, groups = 300 * 128 / 32;
  EXPECT_EQ(weights(QuantSpec{.bits = 8, .group_size = 32}), rest + groups * 35);
  EXPECT_EQ(weights(QuantSpec{.bits = 4, .group_size = 32}), rest + groups * 37 / 2);
}

TEST(Cost, CountsBiases) {
  nlohmann::json config = tiny_config();
  config["attention_bias"] = true;
  ThreadPool pool(1);
  const auto cpu = cpu_backend(pool, kernels::select());
  const auto plain = random_model(tiny_config(), groups_of(32), {}, 0, pool),
             biased = random_model(config, groups_of(32), {}, 0, pool);
  const CountedCheckpoint a(*plain), b(*biased);
  load_model(*cpu, a);
  load_model(*cpu, b);
  EXPECT_EQ(b.cost(DType::f16).weights - a.cost(DType::f16).weights, 3 * (128 + 64 + 64 + 128) * 4);
}

}  // namespace
}  // namespace awq
