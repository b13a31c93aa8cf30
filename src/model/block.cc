// What a block computes and what may be scaled in it, side by side: a change to one is a change to both.
#include "model/block.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>

#include "model/experts.h"

namespace awq {
namespace {

using enum Role;

constexpr int kMostRepeated = 64;  // sequences of a pass that is recorded; with more, starting kernels takes little
constexpr int kMostKinds = 128;    // of passes

/// Empty where the norm has no gains.
NormWeights weights_of(const Block& b, Role role) {
  const auto w = b.norm.find({role});
  return w == b.norm.end() ? NormWeights{} : w->second;
}

void norm(Backend& dev, const Block& b, Role role, const Tensor& x, Tensor& y, int64_t width) {
  const NormWeights weights = weights_of(b, role);
  dev.norm(x, weights.gain, weights.bias, b.spec.norm_of(role), width, y);
}

void norm(Backend& dev, const Block& b, Role role, const Tensor& x, Tensor& y) {
  norm(dev, b, role, x, y, x.shape()[1]);
}

/// Outputs of `layers`, which share the input x, of some tokens of a batch.
template <size_t N>
std::array<Tensor, N> apply(Backend& dev, const Block& block, const Param (&layers)[N], const Tensor& x,
                            int64_t batch) {
  std::array<const Linear*, N> f;
  std::array<Tensor, N> y;
  for (size_t i = 0; i < N; ++i) f[i] = &block[layers[i]], y[i] = dev.empty({x.shape()[0], f[i]->rows()});
  dev.apply(f, x, y, batch);
  return y;
}

void tapped(const Tap& tap, Site site, const Tensor& x, std::span<const int32_t> rows = {}) {
  if (tap) tap(site, x, rows);
}

/// Whether all sequences are turned by the block's own frequencies.
bool turned_alike(const AttentionSpec& a, Batch batch) {
  return std::ranges::all_of(batch, [&](const Sequence& s) { return a.rope.regime(s.reach()) == 0; });
}

/// Of each of x's heads of so many channels the rotated ones, which begin at `first`.
void rotate(Backend& dev, const Block& block, Batch batch, int head_dim, int first, Tensor& x) {
  const AttentionSpec& a = block.spec.attention;
  if (turned_alike(a, batch)) return dev.rope(x, batch, block.rope, head_dim, first, a.rope.interleaved);
  int64_t row = 0;
  for (const Sequence& s : batch) {
    Tensor part = x.rows(row, row + s.tokens);
    dev.rope(part, {&s, 1}, a.rope.frequencies(s.reach()), head_dim, first, a.rope.interleaved);
    row += s.tokens;
  }
}

/// The norms of q and k, and their rotation.
void prepare(Backend& dev, const Block& block, Role norm_role, Batch batch, Tensor& x) {
  const AttentionSpec& a = block.spec.attention;
  if (a.head_norm != HeadNorm::none)
    norm(dev, block, norm_role, x, x, a.head_norm == HeadNorm::row ? x.shape()[1] : a.head_dim);
  if (a.rope.dims) rotate(dev, block, batch, a.head_dim, 0, x);
}

/// Adds what attention or MLP made of x, normalised where the spec says so.
void add_residual(Backend& dev, const Block& block, Role post_norm, Tensor& y, Tensor& x) {
  if (block.spec.placement != NormPlacement::before) norm(dev, block, post_norm, y, y);
  dev.add(y, block.spec.residual_scale, x);
}

/// The same, and h = norm of x after it.
void add_residual_norm(Backend& dev, const Block& block, Role post_norm, Tensor& y, Tensor& x, Role role, Tensor& h) {
  if (block.spec.placement != NormPlacement::before) norm(dev, block, post_norm, y, y);
  const NormWeights weights = weights_of(block, role);
  dev.add_norm(y, block.spec.residual_scale, x, weights.gain, weights.bias, block.spec.norm_of(role), h);
}

/// What attention mixes, with positions.
struct Mixed {
  Tensor queries, keys, values;
};

/// Each head of v by itself, without gains.
void normalise_values(Backend& dev, const BlockSpec& spec, const Tensor& from, Tensor& to) {
  dev.norm(from, {}, {}, {.eps = spec.norm.eps, .gain = false}, spec.attention.v_dim(), to);
}

/// q, k and v of x as they come from their matrices, bounded; v may be made of k.
std::array<Tensor, 3> qkv(Backend& dev, const Block& block, const Tensor& x) {
  const AttentionSpec& a = block.spec.attention;
  if (a.values != Values::normalised_keys) {
    auto three = apply(dev, block, {{q}, {k}, {v}}, x, x.shape()[0]);
    for (Tensor& t : three)
      if (a.clip != 0) dev.clip(t, a.clip);
    if (a.values == Values::normalised) normalise_values(dev, block.spec, three[2], three[2]);
    return three;
  }
  auto [queries, keys] = apply(dev, block, {{q}, {k}}, x, x.shape()[0]);
  Tensor values = dev.empty(keys.shape());
  normalise_values(dev, block.spec, keys, values);
  return {queries, keys, values};
}

Mixed projected(Backend& dev, const Block& block, Batch batch, const Tensor& x) {
  auto [queries, keys, values] = qkv(dev, block, x);
  prepare(dev, block, q_norm, batch, queries);
  prepare(dev, block, k_norm, batch, keys);
  return {queries, keys, values};
}

/// Of few channels, normalised: what q of so many reads.
Tensor latent_queries(Backend& dev, const Block& block, Tensor& latent, const Tap& tap) {
  norm(dev, block, q_a_norm, latent, latent);
  tapped(tap, {q}, latent);
  return apply(dev, block, {{q}}, latent, latent.shape()[0])[0];
}

/// Keys and values of each head, as if they had been projected: nothing of what follows knows of the latent.
Mixed latent_projected(Backend& dev, const Block& block, Batch batch, const Tensor& x, const Tap& tap) {
  const AttentionSpec& a = block.spec.attention;
  const int64_t tokens = x.shape()[0];
  auto [first, latent, positions] = apply(dev, block, {attention_input(block.spec), {kv_a}, {k_rope}}, x, tokens);
  Tensor queries = a.latent->q_rank ? latent_queries(dev, block, first, tap) : first;
  norm(dev, block, kv_a_norm, latent, latent);
  tapped(tap, {k}, latent);
  auto [own, values] = apply(dev, block, {{k}, {v}}, latent, tokens);
  rotate(dev, block, batch, a.head_dim, a.unrotated(), queries);
  rotate(dev, block, batch, a.rope.dims, 0, positions);
  Tensor keys = dev.empty({tokens, a.kv_rows()});
  dev.join_heads(own, positions, a.kv_heads, keys);
  return {queries, keys, values};
}

/// Queries alone; keys and values are another block's.
Mixed borrowed(Backend& dev, const Block& block, Batch batch, const Tensor& x, const Beside* beside) {
  Tensor queries = apply(dev, block, {{q}}, x, x.shape()[0])[0];
  prepare(dev, block, q_norm, batch, queries);
  return beside ? Mixed{queries, beside->keys, beside->values} : Mixed{queries, {}, {}};
}

Mixed mixed_of(Backend& dev, const Block& block, Batch batch, const Tensor& x, const Tap& tap, Beside* beside) {
  if (block.spec.borrows_keys()) return borrowed(dev, block, batch, x, beside);
  Mixed m = block.spec.attention.latent ? latent_projected(dev, block, batch, x, tap) : projected(dev, block, batch, x);
  if (beside && block.spec.shared_keys) beside->keys = m.keys, beside->values = m.values;
  return m;
}

std::span<const float> sinks_of(const Block& block) {
  const auto own = block.norm.find({sinks});  // a view: the block keeps them
  return own == block.norm.end() ? std::span<const float>() : std::as_const(own->second.gain).as<float>();
}

std::optional<HeadsInput::Norm> head_norm(const Block& block, Role role) {
  if (block.spec.attention.head_norm == HeadNorm::none) return std::nullopt;
  const NormWeights weights = weights_of(block, role);
  return HeadsInput::Norm{weights.gain, weights.bias, block.spec.norm_of(role)};
}

bool attends_heads(const BlockSpec& spec, Batch batch) {
  const AttentionSpec& a = spec.attention;
  return !a.latent && a.head_norm != HeadNorm::row && a.values == Values::plain && !spec.shared_keys &&
         (!a.rope.dims || turned_alike(a, batch));
}

/// Attention of heads that are normalised each by itself, if at all, and turned by the block's own frequencies: one
/// call.
void attend_heads(Backend& dev, const Block& block, Batch batch, int kv_block, const Tensor& x, Tensor& mixed) {
  const AttentionSpec& a = block.spec.attention;
  const auto [queries, keys, values] = qkv(dev, block, x);
  const HeadsInput in{.q = queries,
                      .k = keys,
                      .v = values,
                      .q_norm = head_norm(block, q_norm),
                      .k_norm = head_norm(block, k_norm),
                      .frequencies = a.rope.dims ? std::span<const float>(block.rope) : std::span<const float>(),
                      .sinks = sinks_of(block)};
  dev.heads(in, batch, kv_block, a, mixed);
}

/// What attention makes of x, for o.
Tensor attended(Backend& dev, const Block& block, Batch batch, int kv_block, const Tensor& x, const Tap& tap,
                Beside* beside) {
  const AttentionSpec& a = block.spec.attention;
  Tensor mixed = dev.empty({x.shape()[0], a.out_rows()});
  if (attends_heads(block.spec, batch)) {
    attend_heads(dev, block, batch, kv_block, x, mixed);
  } else {
    const auto [queries, keys, values] = mixed_of(dev, block, batch, x, tap, beside);
    dev.attention(queries, keys, values, sinks_of(block), batch, kv_block, a, mixed);
  }
  if (a.gated) dev.activate(Activation::sigmoid, apply(dev, block, {{o_gate}}, x, x.shape()[0])[0], &mixed, mixed);
  return mixed;
}

/// What a delta net does.
Tensor recurred(Backend& dev, const Block& block, Batch batch, int kv_block, const Tensor& x) {
  const DeltaSpec& d = *block.spec.delta;
  const auto [queries, keys, values, gates, betas, decays] =
      apply(dev, block, {{q}, {k}, {v}, {o_gate}, {beta}, {decay}}, x, x.shape()[0]);
  const auto constant = [&](Role role) { return block.norm.at({role}).gain; };
  Tensor mixed = dev.empty({x.shape()[0], d.value_rows()});
  dev.delta({queries, keys, values, betas, decays, constant(conv), constant(decay_bias), constant(decay_rate)}, batch,
            kv_block, d, mixed);
  norm(dev, block, o_norm, mixed, mixed, d.value_dim);
  dev.activate(Activation::silu, gates, &mixed, mixed);
  return mixed;
}

}  // namespace

Site attention_input(const BlockSpec& spec) {
  const std::optional<LatentSpec>& latent = spec.attention.latent;
  return {latent && latent->q_rank ? q_a : q};
}

bool reads_module_input(const BlockSpec& spec, const ScaleGroup& g) {
  const Site site = g.consumers.front();
  if (site == attention_input(spec)) return !spec.borrows_keys();  // else it needs more than this input
  return (site.role == gate || site.role == up) && !(spec.experts && spec.experts->apart);
}

void attention_forward(Backend& dev, const Block& block, Batch batch, int kv_block, const Tensor& x, Tensor& y,
                       const Tap& tap, Beside* beside) {
  tapped(tap, attention_input(block.spec), x);
  const Tensor mixed = block.spec.delta ? recurred(dev, block, batch, kv_block, x)
                                        : attended(dev, block, batch, kv_block, x, tap, beside);
  tapped(tap, {o}, mixed);
  block[o](mixed, y);
}

void expert_forward(Backend& dev, const Block& block, int expert, const Tensor& x, Tensor& y, int64_t batch,
                    const Tap& tap, std::span<const int32_t> rows) {
  const MlpSpec& m = block.spec.mlp;
  const Linear& last = block[{down, expert}];
  Tensor h, u;
  if (m.gated) {
    auto both = apply(dev, block, {{gate, expert}, {up, expert}}, x, batch);
    h = both[0], u = both[1];
  } else {
    h = apply(dev, block, {{up, expert}}, x, batch)[0];
  }
  if (m.act != Activation::clamped_swish && !tap)
    return dev.activated_product(m.act, h, m.gated ? &u : nullptr, last, y, batch);
  if (m.act == Activation::clamped_swish)
    dev.clamped_swish(h, u, m.alpha, m.limit);
  else
    dev.activate(m.act, h, m.gated ? &u : nullptr, h);
  tapped(tap, {down, expert}, h, rows);
  last.multiply(h, y, batch);
}

namespace {

/// y += what the routed tokens of x become. Outputs are added expert by expert, so a token's sum does not depend on the
/// others.
void add_expert(Backend& dev, const Block& block, int expert, const Route& route, const Tensor& x, Tensor& y,
                const Tap& tap) {
  const auto tokens = int64_t(route.rows.size());
  if (!tokens) return;
  Tensor some = dev.empty({tokens, x.shape()[1]}), out = dev.empty(some.shape());
  dev.embed(x, route.rows, 1, some);
  expert_forward(dev, block, expert, some, out, x.shape()[0], tap, route.rows);
  dev.add_rows(out, route.rows, route.weights, y);
}

std::vector<Route> routed(Backend& dev, const Block& block, const Tensor& x) {
  const ExpertsSpec& e = *block.spec.experts;
  Tensor logits = apply(dev, block, {{router}}, x, x.shape()[0])[0];
  if (e.router_scale != 1) dev.scale(logits, e.router_scale);
  std::vector<Route> routes = routes_of(e, dev.host(logits), block.correction);
  for (size_t i = 0; e.weighted && i < routes.size(); ++i)
    for (float& w : routes[i].weights) w *= block.norm.at({experts_weight}).gain.as<float>()[i];
  return routes;
}

/// y = what the experts make of x, which are chosen by what the router reads.
void mixture_forward(Backend& dev, const Block& block, const Tensor& chosen_by, const Tensor& x, Tensor& y,
                     const Tap& tap) {
  const std::vector<Route> routes = routed(dev, block, chosen_by);
  dev.zero(y);
  for (int i = 0; i < int(routes.size()); ++i) add_expert(dev, block, i, routes[size_t(i)], x, y, tap);
}

void experts_forward(Backend& dev, const Block& block, const Tensor& x, Tensor& y, const Tap& tap) {
  const ExpertsSpec& e = *block.spec.experts;
  const int64_t tokens = x.shape()[0];
  mixture_forward(dev, block, x, x, y, tap);
  if (!e.shared_hidden) return;
  const Tensor gates = e.shared_gate ? dev.host(apply(dev, block, {{shared_router}}, x, tokens)[0]) : Tensor();
  add_expert(dev, block, kSharedExpert, shared_route(gates, tokens), x, y, tap);
}

}  // namespace

void mlp_forward(Backend& dev, const Block& block, const Tensor& x, Tensor& y, const Tap& tap) {
  if (block.spec.parallel != Parallel::one_norm)  // else q's input, seen already
    tapped(tap, {block.spec.mlp.gated ? gate : up}, x);
  if (block.spec.experts)
    experts_forward(dev, block, x, y, tap);
  else
    expert_forward(dev, block, 0, x, y, x.shape()[0], tap);
}

namespace {

/// y = an MLP and, beside it, a mixture of experts, each with norms of its own, of x as it is.
void apart_forward(Backend& dev, const Block& block, const Tensor& x, Tensor& y, const Tap& tap) {
  Tensor h = dev.empty(x.shape()), chosen_by = dev.empty(x.shape()), mixture = dev.empty(x.shape());
  norm(dev, block, mlp_norm, x, h);
  tapped(tap, {gate, kSharedExpert}, h);
  expert_forward(dev, block, kSharedExpert, h, y, x.shape()[0], tap);
  norm(dev, block, dense_post_norm, y, y);
  norm(dev, block, experts_norm, x, h);
  norm(dev, block, router_norm, x, chosen_by);
  tapped(tap, {gate}, h);
  mixture_forward(dev, block, chosen_by, h, mixture, tap);
  norm(dev, block, experts_post_norm, mixture, mixture);
  dev.add(mixture, 1, y);
}

const Tensor& own_of(const Beside* beside) {
  if (!beside || !beside->own) fail("forward", "the block reads a vector of each token, and none were given");
  return beside->own;
}

/// x += what the block makes of the tokens' own vectors.
void add_own(Backend& dev, const Block& block, const Tensor& own, Tensor& x, const Tap& tap) {
  tapped(tap, {own_gate}, x);
  Tensor h = apply(dev, block, {{own_gate}}, x, x.shape()[0])[0], y = dev.empty(x.shape());
  dev.activate(block.spec.mlp.act, h, &own, h);
  tapped(tap, {own_out}, h);
  block[own_out](h, y);
  norm(dev, block, own_post_norm, y, y);
  dev.add(y, 1, x);
}

}  // namespace

void block_forward(Backend& dev, const Block& block, Batch batch, int kv_block, Tensor& x, const Tap& tap,
                   Beside* beside) {
  const BlockSpec& spec = block.spec;
  const bool apart = spec.experts && spec.experts->apart;
  const bool before = spec.placement != NormPlacement::after;
  Tensor h = dev.empty(x.shape()), y = dev.empty(x.shape());
  if (before) norm(dev, block, attn_norm, x, h);
  attention_forward(dev, block, batch, kv_block, before ? h : x, y, tap, beside);
  if (spec.parallel == Parallel::two_norms) norm(dev, block, mlp_norm, x, h);
  if (spec.parallel == Parallel::no && before && !apart) {
    add_residual_norm(dev, block, attn_post_norm, y, x, mlp_norm, h);
  } else {
    add_residual(dev, block, attn_post_norm, y, x);
  }
  apart ? apart_forward(dev, block, x, y, tap) : mlp_forward(dev, block, before ? h : x, y, tap);
  add_residual(dev, block, mlp_post_norm, y, x);
  if (spec.own_width) add_own(dev, block, own_of(beside), x, tap);
  if (spec.out_scaled) dev.scale(x, block.norm.at({out_scale}).gain.as<float>()[0]);
}

Tensor own_input(Backend& dev, const Block& block, std::span<const int32_t> tokens) {
  if (!block.own) return {};
  const OwnInput& o = *block.own;
  const auto n = int64_t(tokens.size());
  Tensor e = dev.empty({n, o.embed.shape()[1]}), row = dev.empty({n, o.spec.width});
  dev.embed(o.embed, tokens, 1, e);
  Tensor y = apply(dev, block, {{own_projection}}, e, n)[0];
  dev.norm(y, o.gain, {}, o.spec.norm, o.spec.width, y);
  std::vector<int32_t> rows;
  for (int32_t t : tokens) rows.push_back(t * o.blocks + o.block);
  dev.embed(o.rows, rows, o.spec.row_scale, row);
  dev.add(row, 1, y);
  dev.scale(y, o.spec.scale);
  return y;
}

namespace {

std::vector<Param> inputs_of(const BlockSpec& spec, const std::vector<int>& mlps) {
  std::vector<Param> inputs;
  for (int e : mlps) {
    if (spec.mlp.gated) inputs.push_back({gate, e});
    inputs.push_back({up, e});
  }
  return inputs;
}

/// Matrices that stay in floats, of the attention or of the MLP.
std::vector<Param> floats_of(const BlockSpec& spec, bool attention) {
  std::vector<Param> all;
  for (Param p : spec.params())
    if (stays_float(p.role) && in_attention(p.role) == attention) all.push_back(p);
  return all;
}

// What precedes can absorb scales if it ends in gains.
std::optional<Param> norm_before(const BlockSpec& spec, Role role) {
  if (spec.placement == NormPlacement::after || !spec.norm.gain) return std::nullopt;
  return Param{role};
}

// up reaches down through a product unless it is bounded or has 1 added, or through an activation: relu(c u) = c
// relu(u) for c > 0, and relu^2 squares c; no other lets a factor through.
ScaleGroup into_down(const MlpSpec& mlp, int expert) {
  const bool relu2 = !mlp.gated && mlp.act == Activation::relu2;
  if (mlp.act == Activation::clamped_swish) return {.producer = std::nullopt, .consumers = {{down, expert}}};
  if (mlp.gated || mlp.act == Activation::relu || relu2)
    return {.producer = Param{up, expert}, .consumers = {{down, expert}}, .squared = relu2};
  return {.producer = std::nullopt, .consumers = {{down, expert}}};
}

// v reaches o through a weighted mean over positions, so a channel of v may be scaled if every query head that reads
// its kv head agrees, and nothing bounds it on the way or divides it by the length of its head. Where other blocks read
// the same values, their o would have to agree, too.
// A gate multiplies behind that. What a delta net makes of v passes silu and then a norm, whose gains all heads share.
ScaleGroup into_o(const BlockSpec& spec) {
  if (const auto& d = spec.delta)
    return {.producer = Param{o_norm}, .consumers = {{o}}, .tied_heads = d->value_heads, .head_dim = d->value_dim};
  const AttentionSpec& a = spec.attention;
  if (a.clip != 0 || a.values != Values::plain || spec.shared_keys)
    return {.producer = std::nullopt, .consumers = {{o}}};
  return {.producer = Param{v}, .consumers = {{o}}, .tied_heads = a.heads / a.kv_heads, .head_dim = a.v_dim()};
}

std::vector<Param> attention_inputs(const BlockSpec& spec) {
  std::vector<Param> inputs = {{q}};
  if (!spec.borrows_keys()) inputs.push_back({k});
  if (!spec.borrows_keys() && spec.attention.values != Values::normalised_keys) inputs.push_back({v});
  if (spec.attention.latent) inputs = {attention_input(spec), {kv_a}, {k_rope}};
  if (spec.attention.gated || spec.delta) inputs.push_back({o_gate});
  return inputs;
}

/// What reads the MLP's norms: of a mixture that is apart its experts have one, its MLP another, and its router a
/// third, which absorbs nothing.
std::vector<ScaleGroup> into_mlps(const BlockSpec& spec) {
  if (!spec.experts || !spec.experts->apart)
    return {{.producer = norm_before(spec, mlp_norm),
             .consumers = inputs_of(spec, spec.mlps()),
             .float_readers = floats_of(spec, false)}};
  std::vector<int> experts = spec.mlps();
  std::erase(experts, kSharedExpert);
  return {{.producer = norm_before(spec, mlp_norm), .consumers = inputs_of(spec, {kSharedExpert})},
          {.producer = norm_before(spec, experts_norm), .consumers = inputs_of(spec, experts)}};
}

/// What reads a latent, behind whose norm nothing else stands.
std::vector<ScaleGroup> into_latents(const AttentionSpec& a) {
  std::vector<ScaleGroup> groups;
  if (a.latent && a.latent->q_rank) groups.push_back({.producer = Param{q_a_norm}, .consumers = {{q}}});
  if (a.latent) groups.push_back({.producer = Param{kv_a_norm}, .consumers = {{k}, {v}}});
  return groups;
}

}  // namespace

// attn_norm feeds exactly q, k, v, or what makes latents, the gate of o's input and what rules a delta net's state, and
// the MLP too where there is one norm for both; mlp_norm feeds exactly the MLP: of experts all of them and what routes
// to them. A norm after the module and the norms of heads
// see unscaled values: o and down absorb nothing.
std::vector<ScaleGroup> scale_groups(const BlockSpec& spec) {
  ScaleGroup into_attention{.producer = norm_before(spec, attn_norm),
                            .consumers = attention_inputs(spec),
                            .float_readers = floats_of(spec, true)};
  std::vector<ScaleGroup> groups = {into_attention, into_o(spec)};
  for (ScaleGroup& into_mlp : into_mlps(spec)) {
    if (spec.parallel != Parallel::one_norm) {
      groups.push_back(std::move(into_mlp));
      continue;
    }
    std::ranges::copy(into_mlp.consumers, std::back_inserter(groups[0].consumers));
    std::ranges::copy(into_mlp.float_readers, std::back_inserter(groups[0].float_readers));
  }
  for (int e : spec.mlps()) groups.push_back(into_down(spec.mlp, e));
  std::ranges::move(into_latents(spec.attention), std::back_inserter(groups));
  if (spec.own_width)  // of x itself, which no norm precedes, and of a product whose factors are shared or activated
    for (Role role : {own_gate, own_out}) groups.push_back({.producer = std::nullopt, .consumers = {{role}}});
  return groups;
}

namespace {

void multiply(std::vector<float>& factors, std::span<const float> s) {
  if (factors.empty()) factors.assign(s.size(), 1.f);
  for (size_t i = 0; i < s.size(); ++i) factors[i] *= s[i];
}

void scale_row(float* w, size_t row, size_t cols, const Factors& f) {
  if (!f.columns.empty())
    for (size_t c = 0; c < cols; ++c) w[c] *= f.columns[c];
  if (!f.rows.empty())
    for (size_t c = 0; c < cols; ++c) w[c] /= f.rows[row];
}

// One factor a row of the producer: with tied heads the first query head of each kv head speaks for all.
std::vector<float> producer_scales(const ScaleGroup& g, std::span<const float> s) {
  std::vector<float> rows;
  const size_t head = g.tied_heads > 1 ? size_t(g.head_dim) : s.size();
  for (size_t begin = 0; begin < s.size(); begin += head * size_t(g.tied_heads))
    rows.insert(rows.end(), s.begin() + long(begin), s.begin() + long(begin + head));
  if (g.squared)
    for (float& r : rows) r = std::sqrt(r);
  return rows;
}

}  // namespace

void BlockWeights::read_rows(Param p, int64_t first, int64_t count, float* to) const {
  const Tensor band = tensor(p).rows(first, first + count);
  band.widen(to);
  const auto f = factors.find(p);
  if (f == factors.end()) return;
  const auto cols = size_t(band.shape()[1]);
  for (int64_t r = 0; r < count; ++r) scale_row(to + r * int64_t(cols), size_t(first + r), cols, f->second);
}

Pieces BlockWeights::pieces(Param p) const {
  const Tensor& w = tensor(p);
  if (!factors.contains(p)) return pieces_of(w);
  const int64_t cols = w.shape()[1];
  return in_bands(w.shape(), DType::f32, cols * int64_t(sizeof(float)), 1, [this, p, cols](int64_t begin, int64_t end) {
    Tensor band = Tensor::empty({end - begin, cols}, DType::f32);
    read_rows(p, begin, end - begin, band.as<float>().data());
    return band;
  });
}

void fold(BlockWeights& w, const ScaleGroup& group, std::span<const float> s) {
  for (const auto& readers : {group.consumers, group.float_readers})
    for (Param p : readers) multiply(w.factors[p].columns, s);
  const std::vector<float> rows = producer_scales(group, s);
  const Param p = group.producer.value();
  if (is_norm(p.role)) {
    const float offset = w.spec.norm_of(p.role).gain_offset;
    auto gain = w.tensor(p).as<float>();
    for (size_t i = 0; i < gain.size(); ++i) gain[i] = (gain[i] + offset) / rows[i] - offset;
  } else {
    multiply(w.factors[p].rows, rows);
  }
  if (const auto b = w.bias.find(p); b != w.bias.end())
    for (size_t i = 0; i < rows.size(); ++i) b->second.as<float>()[i] /= rows[i];
}

Block upload(Backend& dev, const BlockWeights& w, std::optional<DType> type) {
  Block b{.spec = w.spec,
          .norm = {},
          .linear = {},
          .rope = w.spec.attention.rope.frequencies(),
          .type = type,
          .own = w.own};
  if (w.own) b.linear[{own_projection}] = dev.linear(w.own->projection, nullptr);
  for (const auto& [param, weight] : w.at) {
    const auto bias = w.bias.find(param);
    const bool has = bias != w.bias.end();
    if (is_norm(param.role))  // a fold of `w` must not reach the device
      b.norm[param] = {std::get<Tensor>(weight).to(DType::f32).clone(), has ? bias->second.clone() : Tensor()};
    else if (param.role == router && has && w.spec.experts->correction)
      b.linear[param] = dev.linear(type ? in_type(w.pieces(param), *type) : w.pieces(param), nullptr),
      b.correction.assign(bias->second.as<float>().begin(), bias->second.as<float>().end());
    else
      b.linear[param] =
          dev.linear(type ? in_type(w.pieces(param), *type) : w.pieces(param), has ? &bias->second : nullptr);
  }
  return b;
}

int64_t Model::bytes_per_token() const {
  int64_t n = head->bytes();
  for (const Block& b : blocks) {
    int64_t routed = 0;
    for (const auto& [param, linear] : b.linear) (b.spec.is_routed(param) ? routed : n) += linear->bytes();
    if (b.spec.experts) n += routed / b.spec.experts->count * b.spec.experts->active;
  }
  return n;
}

namespace {

// Rows of the table of positions, as `embed` wants them.
std::vector<int32_t> position_rows(const ModelSpec& spec, Batch batch) {
  std::vector<int32_t> rows;
  for (const Sequence& s : batch)
    for (int t = 0; t < s.tokens; ++t) rows.push_back(spec.first_position_row + s.first + t);
  return rows;
}

}  // namespace

void embed_places(Backend& dev, const ModelSpec& spec, const Embedding& embed, Batch batch, Tensor& x) {
  if (embed.positions) {
    Tensor p = dev.empty(x.shape());
    dev.embed(embed.positions, position_rows(spec, batch), 1, p);
    dev.add(p, 1, x);
  }
  if (spec.embed_norm) dev.norm(x, embed.norm.gain, embed.norm.bias, spec.final_norm, spec.dim, x);
}

Tensor embed_forward(Backend& dev, const ModelSpec& spec, const Embedding& embed, std::span<const int32_t> tokens,
                     Batch batch) {
  Tensor x = dev.empty({int64_t(tokens.size()), spec.dim});
  dev.embed(embed.table, tokens, spec.embed_scale, x);
  embed_places(dev, spec, embed, batch, x);
  return x;
}

void final_norm_forward(Backend& dev, const Model& m, Tensor& x) {
  dev.norm(x, m.final_norm.gain, m.final_norm.bias, m.spec.final_norm, m.spec.dim, x);
  if (m.spec.head_input_scale != 1) dev.scale(x, m.spec.head_input_scale);
}

namespace {

void blocks_forward(Backend& dev, const Model& m, std::span<const int32_t> tokens, Batch batch, Tensor& x) {
  for (size_t i = 0; i < m.blocks.size(); ++i) {
    const Block& b = m.blocks[i];
    dev.enter(b.spec.on_host, x);
    Beside beside{.own = own_input(dev, b, tokens), .keys = {}, .values = {}};
    block_forward(dev, b, batch, b.spec.borrows_keys() ? *b.spec.shared_keys->of : int(i), x, {}, &beside);
  }
  dev.enter(false, x);
  final_norm_forward(dev, m, x);
}

Tensor embedded(Backend& dev, const Model& m, std::span<const int32_t> tokens, Batch batch) {
  dev.enter(!m.blocks.empty() && m.blocks.front().spec.on_host);
  return embed_forward(dev, m.spec, m.embed, tokens, batch);
}

/// Whether passes over single tokens differ in tokens and positions alone: no part is on the host, nor decided there.
bool repeats(const Model& m, Batch batch) {
  const auto alike = [&](const Block& b) {
    return !b.spec.on_host && !b.spec.experts && !b.spec.delta && !b.spec.own_width &&
           (!b.spec.attention.rope.dims || turned_alike(b.spec.attention, batch));
  };
  const auto one = [](const Sequence& s) { return s.tokens == 1; };
  return m.recordings && int64_t(batch.size()) <= kMostRepeated && std::ranges::all_of(batch, one) &&
         std::ranges::all_of(m.blocks, alike);
}

}  // namespace

Tensor hidden_forward(Backend& dev, const Model& m, std::span<const int32_t> tokens, Batch batch) {
  Tensor x = embedded(dev, m, tokens, batch);
  blocks_forward(dev, m, tokens, batch, x);
  return x;
}

Tensor step_forward(Backend& dev, const Model& m, std::span<const int32_t> tokens, Batch batch, const PassEnd& end) {
  const auto pass = [&](Tensor& x) {
    blocks_forward(dev, m, tokens, batch, x);
    return end.make ? end.make(x) : x;
  };
  Tensor x = embedded(dev, m, tokens, batch);
  if (!repeats(m, batch)) return pass(x);
  const int kinds_of_fewer = int(m.blocks.size()) * kMostKinds;  // a copy of a model may have fewer blocks
  return dev.repeat(m.recordings.get(), kinds_of_fewer + end.kind, batch, x, pass);
}

}  // namespace awq
