// Fused tensors: what is put together comes apart again, by every pattern, and nothing is mixed.
#include "formats/stored.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <numeric>

#include "base/check.h"

namespace awq {
namespace {

Tensor counting(Shape shape, float first) {
  Tensor t = Tensor::empty(shape, DType::f32);
  std::iota(t.as<float>().begin(), t.as<float>().end(), first);
  return t;
}

StoredTensor of_parts(std::vector<StoredPart> parts, bool transposed = false) {
  StoredTensor s{
      .name = "fused", .shape = {}, .rows = 0, .transposed = transposed, .bias = false, .parts = std::move(parts)};
  for (const StoredPart& p : s.parts) s.rows += p.total;
  return s;
}

// Two kv heads with two query heads each, of three rows: q q k v, q q k v.
const std::vector<StoredPart> kByHead = {
    {0, {Role::q}, {0, 6, 12}, 12}, {0, {Role::k}, {6, 3, 12}, 6}, {0, {Role::v}, {9, 3, 12}, 6}};
const std::vector<StoredPart> kInOrder = {
    {0, {Role::q}, {0, 12, 24}, 12}, {0, {Role::k}, {12, 6, 24}, 6}, {0, {Role::v}, {18, 6, 24}, 6}};

TEST(Stored, PartsComeApartAsTheyWerePutTogether) {
  for (const auto& parts : {kByHead, kInOrder}) {
    const StoredTensor s = of_parts(parts);
    const std::vector<Weight> weights = {counting({12, 5}, 0), counting({6, 5}, 100), counting({6, 5}, 200)};
    const auto all = std::get<Tensor>(merged(s, weights));
    ASSERT_EQ(all.shape(), (Shape{24, 5}));
    for (size_t i = 0; i < parts.size(); ++i)
      for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, parts[i].total}, {1, 5}, {2, 3}, {4, 4}}) {
        if (begin == end) continue;
        const Tensor part = gather(parts[i].rows, begin, end, [&](int64_t b, int64_t e) { return all.rows(b, e); });
        const Tensor want = std::get<Tensor>(weights[i]).rows(begin, end);
        ASSERT_EQ(part.shape(), want.shape());
        EXPECT_TRUE(std::ranges::equal(part.as<float>(), want.as<float>())) << i << ": " << begin << " to " << end;
      }
  }
}

TEST(Stored, RowsOfAHeadAreWhereThePatternSays) {
  const auto all =
      std::get<Tensor>(merged(of_parts(kByHead), {counting({12, 1}, 0), counting({6, 1}, 100), counting({6, 1}, 200)}));
  const float want[] = {0, 1, 2, 3, 4,  5,  100, 101, 102, 200, 201, 202,
                        6, 7, 8, 9, 10, 11, 103, 104, 105, 203, 204, 205};
  EXPECT_TRUE(std::ranges::equal(all.as<float>(), want));
}

TEST(Stored, TransposedPartsAreColumns) {
  const StoredTensor s = of_parts(kInOrder, true);
  const std::vector<Weight> weights = {counting({12, 5}, 0), counting({6, 5}, 100), counting({6, 5}, 200)};
  const Tensor file = as_stored(s, std::get<Tensor>(merged(s, weights)));
  ASSERT_EQ(file.shape(), (Shape{5, 24}));
  EXPECT_EQ(file.as<float>()[1 * 24 + 13], 106);  // row 1 of k, column 1
  const Tensor k = gather_transposed(kInOrder[1].rows, 2, 5, file);
  EXPECT_TRUE(std::ranges::equal(k.as<float>(), std::get<Tensor>(weights[1]).rows(2, 5).as<float>()));
}

TEST(Stored, PartsOfOneTensorAreStoredAlike) {
  const QuantSpec quant{.bits = 4, .group_size = 5};
  const Weight floats = counting({6, 5}, 0), halves = counting({6, 5}, 0).to(DType::f16),
               codes = quantize(counting({6, 5}, 0), quant);
  const StoredTensor s = of_parts(kInOrder);
  for (const Weight& other : {halves, codes}) EXPECT_THROW(merged(s, {counting({12, 5}, 0), floats, other}), Error);
  EXPECT_THROW(merged(s, {quantize(counting({12, 5}, 0), quant), codes, floats}), Error);
}

/// A block of three experts that a family stacks: gate and up in one tensor, down in another.
ModelSpec with_stacked_experts() {
  const auto config = nlohmann::json::parse(R"({"architectures": ["GraniteMoeForCausalLM"], "hidden_act": "silu",
    "hidden_size": 8, "intermediate_size": 2, "num_hidden_layers": 1, "num_attention_heads": 2, "num_local_experts": 3,
    "num_experts_per_tok": 2, "max_position_embeddings": 16, "rms_norm_eps": 1e-3, "vocab_size": 5})");
  return find_architecture("GraniteMoeForCausalLM").parse(config);
}

TEST(Stored, ExpertsLieInOneTensorWhereTheyArePublishedSo) {
  const StoredTensors stored(with_stacked_experts(), Experts::as_published);
  const StoredTensor& up = stored.holding(0, {Role::up, 1});
  EXPECT_EQ(up.name, "model.layers.0.block_sparse_moe.input_linear");
  EXPECT_EQ(up.shape, (Shape{3, 4, 8}));
  EXPECT_EQ(&up, &stored.holding(0, {Role::gate, 2}));
  EXPECT_EQ(stored.rows(0, {Role::gate, 1}), (RowPattern{4, 2, 12}));
  EXPECT_EQ(stored.rows(0, {Role::up, 1}), (RowPattern{6, 2, 12}));
  EXPECT_EQ(stored.holding(0, {Role::down, 2}).shape, (Shape{3, 8, 2}));
  EXPECT_EQ(stored.rows(0, {Role::down, 2}), (RowPattern{16, 8, 24}));
}

TEST(Stored, ExpertsLieApartWhereTheyAreCodes) {
  const StoredTensors stored(with_stacked_experts(), Experts::apart);
  const StoredTensor& up = stored.holding(0, {Role::up, 1});
  EXPECT_EQ(up.name, "model.layers.0.block_sparse_moe.experts.1.up_proj");
  EXPECT_EQ(up.shape, (Shape{2, 8}));
  EXPECT_EQ(stored.rows(0, {Role::up, 1}), (RowPattern{0, 2, 2}));
}

// gpt-oss has [experts, in, out] with columns of gate and up by turns.
TEST(Stored, ExpertsMayBeTransposedWithRowsByTurns) {
  const auto config = nlohmann::json::parse(R"({"architectures": ["GptOssForCausalLM"], "hidden_size": 8,
    "intermediate_size": 2, "num_hidden_layers": 1, "num_attention_heads": 2, "num_local_experts": 3,
    "num_experts_per_tok": 2, "max_position_embeddings": 16, "rms_norm_eps": 1e-3, "vocab_size": 5,
    "sliding_window": 4})");
  const StoredTensors stored(find_architecture("GptOssForCausalLM").parse(config), Experts::as_published);
  const StoredTensor& s = stored.holding(0, {Role::up, 1});
  EXPECT_EQ(s.weight(), "model.layers.0.mlp.experts.gate_up_proj");
  EXPECT_EQ(s.bias_tensor(), "model.layers.0.mlp.experts.gate_up_proj_bias");
  EXPECT_EQ(s.shape, (Shape{3, 8, 4}));
  EXPECT_EQ(stored.rows(0, {Role::up, 1}), (RowPattern{5, 1, 2}));
  std::vector<Weight> parts;
  for (const StoredPart& p : s.parts) parts.emplace_back(counting({2, 8}, float(p.rows.begin * 100)));
  const Tensor file = as_stored(s, std::get<Tensor>(merged(s, parts)));
  ASSERT_EQ(file.shape(), s.shape);
  EXPECT_EQ(file.as<float>()[(1 * 8 + 3) * 4 + 1], 500 + 3);      // up of expert 1, row 0, column 3
  EXPECT_EQ(file.as<float>()[(1 * 8 + 3) * 4 + 2], 400 + 8 + 3);  // its gate, row 1
  EXPECT_EQ(stored.holding(0, {Role::down, 2}).shape, (Shape{3, 2, 8}));
}

// Rows of latents follow each other; of each head there are two of keys and three of values.
TEST(Stored, LatentAttentionsPartsAreRowsOfTwoTensors) {
  const auto config = nlohmann::json::parse(R"({"architectures": ["MiniCPM3ForCausalLM"], "hidden_act": "silu",
    "hidden_size": 8, "intermediate_size": 2, "num_hidden_layers": 1, "num_attention_heads": 2, "q_lora_rank": 6,
    "kv_lora_rank": 4, "qk_nope_head_dim": 2, "qk_rope_head_dim": 4, "v_head_dim": 3, "max_position_embeddings": 16,
    "rms_norm_eps": 1e-3, "vocab_size": 5})");
  const ModelSpec spec = find_architecture("MiniCPM3ForCausalLM").parse(config);
  const StoredTensors stored(spec, Experts::as_published);
  EXPECT_EQ(stored.holding(0, {Role::k_rope}).shape, (Shape{8, 8}));
  EXPECT_EQ(stored.rows(0, {Role::k_rope}), (RowPattern{4, 4, 8}));
  EXPECT_EQ(stored.holding(0, {Role::v}).name, "model.layers.0.self_attn.kv_b_proj");
  EXPECT_EQ(stored.holding(0, {Role::v}).shape, (Shape{10, 4}));
  EXPECT_EQ(stored.rows(0, {Role::v}), (RowPattern{2, 3, 5}));
  EXPECT_EQ(stored.holding(0, {Role::q}).name, "model.layers.0.self_attn.q_b_proj");
}

}  // namespace
}  // namespace awq
