// Folding random scales into any group of any family changes nothing but rounding; and each wrong derivation that is
// known from published programs would be seen.
#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "engine/golden_fixture.h"

namespace awq {
namespace {

using golden::Expected;
using golden::kTolerance;

// In [1/4, 4]: multiplying and dividing by them each round once.
std::vector<float> random_scales(size_t n, std::mt19937& rng) {
  std::uniform_real_distribution<float> exponent(-2, 2);
  std::vector<float> s(n);
  for (float& v : s) v = std::exp2(exponent(rng));
  return s;
}

/// The same for all query heads that share a kv head.
void tie(std::vector<float>& s, int heads, int head_dim) {
  const size_t head = size_t(head_dim), span = head * size_t(heads);
  for (size_t c = 0; heads > 1 && c < s.size(); ++c) s[c] = s[c / span * span + c % head];
}

using Fold = std::function<void(BlockWeights& w, std::mt19937& rng)>;

/// How far logits move, relative to the largest, when `change` is made to every block.
double moved(const std::string& family, const Fold& change) {
  Device device(2, "");
  const Expected expected(family);
  const auto checkpoint = Checkpoint::open(golden::folder(family));
  Model model = load_model(*device.backend, *checkpoint);
  std::mt19937 rng(5);
  for (size_t i = 0; i < model.blocks.size(); ++i) {
    BlockWeights w = load_float_block(*checkpoint, int(i), device.pool);
    const BlockSpec spec = w.spec;
    change(w, rng);
    w.spec = spec;
    model.blocks[i] = upload(*device.backend, w, DType::f32);  // as tolerances of f32 want
  }
  return golden::relative_difference(golden::run(device, model, expected.ids), expected.logits);
}

void fold_randomly(BlockWeights& w, const ScaleGroup& g, std::mt19937& rng) {
  std::vector<float> s = random_scales(size_t(w.spec.shape(g.consumers[0]).second), rng);
  tie(s, g.tied_heads, g.head_dim);
  fold(w, g, s);
}

class FoldOfFamily : public testing::TestWithParam<std::string> {};

TEST_P(FoldOfFamily, ChangesNoLogits) {
  const auto checkpoint = Checkpoint::open(golden::folder(GetParam()));
  // The folded weights' two roundings count as much as the products' own, and the errors of blocks add up like chance.
  const double tolerance = 2 * kTolerance * std::sqrt(double(checkpoint->spec().blocks.size()));
  size_t groups = 0;
  for (const BlockSpec& b : checkpoint->spec().blocks) groups = std::max(groups, scale_groups(b).size());
  for (size_t i = 0; i < groups; ++i) {
    const auto fold_group = [i](BlockWeights& w, std::mt19937& rng) {
      const std::vector<ScaleGroup> all = scale_groups(w.spec);
      if (i < all.size() && all[i].producer) fold_randomly(w, all[i], rng);
    };
    EXPECT_LT(moved(GetParam(), fold_group), tolerance) << "group " << i;
  }
}

TEST_P(FoldOfFamily, EveryMatrixIsInOneGroup) {
  const auto checkpoint = Checkpoint::open(golden::folder(GetParam()));
  for (const BlockSpec& b : checkpoint->spec().blocks) {
    std::vector<Param> matrices, grouped;
    const bool own_router = b.experts && b.experts->apart;  // reads a norm of its own
    for (Param p : b.params())
      if (!is_norm(p.role) && !(own_router && p.role == Role::router)) matrices.push_back(p);
    for (const ScaleGroup& g : scale_groups(b))
      for (const auto& readers : {g.consumers, g.float_readers})
        grouped.insert(grouped.end(), readers.begin(), readers.end());
    std::ranges::sort(matrices), std::ranges::sort(grouped);
    EXPECT_EQ(matrices, grouped);
  }
}

INSTANTIATE_TEST_SUITE_P(Families, FoldOfFamily, testing::ValuesIn(golden::names()), golden::name_of_case);

// The group of `consumer` with other contents.
template <class F>
Fold group_changed(Role consumer, F f) {
  return [=](BlockWeights& w, std::mt19937& rng) {
    for (ScaleGroup g : scale_groups(w.spec))
      if (std::ranges::count(g.consumers, Param{consumer})) {
        f(g, w.spec);
        fold_randomly(w, g, rng);
      }
  };
}

Fold without(Role reader) {
  return group_changed(reader, [reader](ScaleGroup& g, const BlockSpec&) { std::erase(g.consumers, Param{reader}); });
}

/// Of what reads the norm before the experts.
Fold experts_without(Param reader) {
  return group_changed(Role::gate, [reader](ScaleGroup& g, const BlockSpec& b) {
    if (b.experts && !std::erase(g.consumers, reader) && !std::erase(g.float_readers, reader))
      fail("test", "{} of expert {} reads something else", name_of(reader.role), reader.expert);
  });
}

Fold produced_by(Param producer, Role consumer) {
  return group_changed(consumer, [producer](ScaleGroup& g, const BlockSpec&) { g.producer = producer; });
}

/// Without a matrix that stays in floats, of what reads the norm before a delta net.
Fold floats_without(Role reader) {
  return group_changed(Role::k,
                       [reader](ScaleGroup& g, const BlockSpec&) { std::erase(g.float_readers, Param{reader}); });
}

/// In blocks with a delta net, or in the others.
Fold in_deltas(bool deltas, Fold f) {
  return [=](BlockWeights& w, std::mt19937& rng) {
    if (w.spec.delta.has_value() == deltas) f(w, rng);
  };
}

/// The right group with the spec that `f` leaves.
template <class F>
Fold under_spec(Role consumer, F f) {
  return [=](BlockWeights& w, std::mt19937& rng) {
    f(w.spec);
    for (const ScaleGroup& g : scale_groups(w.spec))
      if (std::ranges::count(g.consumers, Param{consumer})) fold_randomly(w, g, rng);
  };
}

/// The right group, but the producer's bias is forgotten.
Fold without_bias(Role producer) {
  return [=](BlockWeights& w, std::mt19937& rng) {
    for (const ScaleGroup& g : scale_groups(w.spec))
      if (g.producer == Param{producer}) {
        const Tensor bias = w.bias.at(*g.producer).clone();
        fold_randomly(w, g, rng);
        w.bias.at(*g.producer) = bias;
      }
  };
}

void values_plain(BlockSpec& b) {
  b.attention.values = Values::plain;
  b.shared_keys.reset();
}

struct Planted {
  const char *family, *mistake;
  Fold fold;
};

std::vector<Planted> planted() {
  return {
      {"gptj", "a norm absorbs what the parallel MLP does not expect", without(Role::up)},
      {"phi", "the same", without(Role::up)},
      {"falcon-7b", "the same", without(Role::up)},
      {"cohere", "of a gated MLP one input is forgotten", without(Role::gate)},
      {"llama", "k is forgotten", without(Role::k)},
      {"internlm2", "down's scales go into the activated branch", produced_by({Role::gate}, Role::down)},
      {"qwen", "the same under other names", produced_by({Role::gate}, Role::down)},
      {"phi3", "the last rows of q, k, v are not those that o reads", produced_by({Role::k}, Role::o)},
      {"llama3", "query heads that share a kv head are scaled differently",
       [](BlockWeights& w, std::mt19937& rng) {
         const ScaleGroup g = scale_groups(w.spec)[1];  // into o
         fold(w, g, random_scales(size_t(w.spec.shape({Role::o}).second), rng));
       }},
      {"gpt2", "gelu lets a factor through", produced_by({Role::up}, Role::down)},
      {"starcoder2", "gelu lets a factor through", produced_by({Role::up}, Role::down)},
      {"nemotron", "relu^2 lets the factor itself through",
       group_changed(Role::down, [](ScaleGroup& g, const BlockSpec&) { g.squared = false; })},
      {"olmo", "a clipped v lets a factor through", under_spec(Role::o, [](BlockSpec& b) { b.attention.clip = 0; })},
      {"mpt", "a clipped v lets a factor through", under_spec(Role::o, [](BlockSpec& b) { b.attention.clip = 0; })},
      {"olmo2", "a norm after attention absorbs the MLP's scales", produced_by({Role::attn_post_norm}, Role::gate)},
      {"gemma2", "the norm after attention is taken for the one before the MLP",
       produced_by({Role::attn_post_norm}, Role::gate)},
      {"neox", "the two norms of a parallel block are exchanged", produced_by({Role::mlp_norm}, Role::q)},
      {"gemma", "what is stored is gain - 1", under_spec(Role::q, [](BlockSpec& b) { b.norm.gain_offset = 0; })},
      {"nemotron", "what is stored is gain - 1", under_spec(Role::up, [](BlockSpec& b) { b.norm.gain_offset = 0; })},
      {"opt", "the norm's bias is forgotten", without_bias(Role::attn_norm)},
      {"opt", "the producer's bias is forgotten", without_bias(Role::up)},
      {"qwen2", "the bias of v is forgotten", without_bias(Role::v)},
      {"mixtral", "the router is forgotten", experts_without({Role::router})},
      {"qwen2-moe", "the router is forgotten", experts_without({Role::router})},
      {"qwen3-moe", "the router is forgotten", experts_without({Role::router})},
      {"olmoe", "the router is forgotten", experts_without({Role::router})},
      {"qwen2-moe", "the shared expert's gate is forgotten", experts_without({Role::shared_router})},
      {"qwen2-moe", "the shared expert is forgotten", experts_without({Role::up, kSharedExpert})},
      {"granite-moe", "the router is forgotten", experts_without({Role::router})},
      {"granite-moe", "one of the experts in one tensor is forgotten", experts_without({Role::up, 3})},
      {"granite-moe-shared", "the shared expert is forgotten", experts_without({Role::gate, kSharedExpert})},
      {"gpt-oss", "one is added to up, which is bounded", produced_by({Role::up}, Role::down)},
      {"gpt-oss", "the router is forgotten", experts_without({Role::router})},
      {"gpt-oss", "one of the experts in one tensor is forgotten", experts_without({Role::gate, 2})},
      {"gpt-oss", "the bias of v is forgotten", without_bias(Role::v)},
      {"glm4-moe", "the router is forgotten", experts_without({Role::router})},
      {"glm4-moe", "the shared expert is forgotten", experts_without({Role::up, kSharedExpert})},
      {"glm4-moe", "the bias of v is forgotten", without_bias(Role::v)},
      {"deepseek2", "the router is forgotten", experts_without({Role::router})},
      {"deepseek3", "the router is forgotten", experts_without({Role::router})},
      {"deepseek2-lite", "q is forgotten beside the latent", without(Role::q)},
      {"deepseek2", "what makes the queries' latent is forgotten", without(Role::q_a)},
      {"deepseek2-lite", "what makes the keys' latent is forgotten", without(Role::kv_a)},
      {"deepseek3", "the rotated part of keys is forgotten", without(Role::k_rope)},
      {"minicpm3", "of what reads the latent values are forgotten", without(Role::v)},
      {"minicpm3", "the norm before attention is taken for the latent's", produced_by({Role::attn_norm}, Role::k)},
      {"deepseek3", "the norm of one latent is taken for the other's", produced_by({Role::q_a_norm}, Role::k)},
      {"deepseek3", "o's scales go into the keys of the same tensor", produced_by({Role::k}, Role::o)},
      {"qwen3-next", "the gate of attention is forgotten", in_deltas(false, without(Role::o_gate))},
      {"qwen3-next", "the gate of a delta net is forgotten", in_deltas(true, without(Role::o_gate))},
      {"qwen3-next", "v is forgotten, of the same tensor", in_deltas(true, without(Role::v))},
      {"qwen3-next", "what says how much is written into states is forgotten", floats_without(Role::beta)},
      {"qwen3-next", "what says how much states keep is forgotten", floats_without(Role::decay)},
      {"qwen3-next", "values let a factor through a convolution, silu and a norm",
       in_deltas(true,
                 group_changed(
                     Role::o, [](ScaleGroup& g, const BlockSpec&) { g.producer = Param{Role::v}, g.tied_heads = 1; }))},
      {"qwen3-next", "heads that share a norm's gains are scaled differently",
       in_deltas(true,
                 [](BlockWeights& w, std::mt19937& rng) {
                   const ScaleGroup g = scale_groups(w.spec)[1];  // into o
                   fold(w, g, random_scales(size_t(w.spec.shape({Role::o}).second), rng));
                 })},
      {"qwen3-next", "the delta net's norm is taken for one that stores gain - 1",
       in_deltas(true, under_spec(Role::o, [](BlockSpec& b) { b.delta->norm.gain_offset = 1; }))},
      {"qwen3-next", "the router is forgotten", experts_without({Role::router})},
      {"qwen3-next", "the shared expert's gate is forgotten", experts_without({Role::shared_router})},
      {"gemma4", "v's norm lets a factor through", under_spec(Role::o, values_plain)},
      {"gemma4", "x is scaled, which no norm precedes", produced_by({Role::mlp_norm}, Role::own_gate)},
      {"gemma4", "gelu and the token's vector let a factor through", produced_by({Role::own_gate}, Role::own_out)},
      {"gemma4", "the norm before attention is taken for the one before the MLP",
       produced_by({Role::attn_norm}, Role::gate)},
      {"gemma4-moe", "keys are values, and v's norm lets a factor through", produced_by({Role::k}, Role::o)},
      {"gemma4-moe", "the router is taken for a reader of the experts' norm",
       group_changed(Role::gate, [](ScaleGroup& g, const BlockSpec&) { g.float_readers.push_back({Role::router}); })},
      {"gemma4-moe", "keys, which are values too, are forgotten", without(Role::k)},
      {"gemma4-moe", "one of the experts is forgotten", experts_without({Role::up, 3})},
      {"gemma4-moe", "the experts' norm is taken for the MLP's", produced_by({Role::mlp_norm}, Role::gate)},
      {"gemma4-moe", "the MLP is taken for a reader of the experts' norm",
       group_changed(Role::gate,
                     [](ScaleGroup& g, const BlockSpec&) {
                       g.consumers.push_back({Role::up, kSharedExpert});
                     })},
      {"qwen3-5-moe", "the router is forgotten", experts_without({Role::router})},
      {"qwen3-5-moe", "the shared expert's gate is forgotten", experts_without({Role::shared_router})},
      {"qwen3-5-moe", "one of the experts in one tensor is forgotten", experts_without({Role::gate, 2})},
      {"mixtral", "one of the experts is forgotten", experts_without({Role::gate, 4})},
      {"olmoe", "one of the experts is forgotten", experts_without({Role::up, 1})},
      {"mixtral", "down's scales go into the activated branch", produced_by({Role::gate}, Role::down)},
      {"mixtral", "down's scales go into another expert", produced_by({Role::up, 1}, Role::down)},
  };
}

// What the search judges, and what check_fold in quantize.cc bounds by 1e-5, would be off by this.
TEST(PlantedFold, IsSeen) {
  for (const Planted& p : planted())
    EXPECT_GT(moved(p.family, p.fold), 1000 * kTolerance) << p.family << ": " << p.mistake;
}

}  // namespace
}  // namespace awq
