#include "model/spec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <numeric>

#include "base/check.h"

namespace awq {
namespace {

constexpr std::string_view kRoleNames[] = {"embed",
                                           "positions",
                                           "embed_norm",
                                           "own_embed",
                                           "own_projection",
                                           "own_norm",
                                           "attn_norm",
                                           "q_a",
                                           "q_a_norm",
                                           "kv_a",
                                           "kv_a_norm",
                                           "k_rope",
                                           "q",
                                           "k",
                                           "v",
                                           "o_gate",
                                           "beta",
                                           "decay",
                                           "conv",
                                           "decay_bias",
                                           "decay_rate",
                                           "o_norm",
                                           "o",
                                           "q_norm",
                                           "k_norm",
                                           "sinks",
                                           "attn_post_norm",
                                           "mlp_norm",
                                           "experts_norm",
                                           "router_norm",
                                           "gate",
                                           "up",
                                           "down",
                                           "router",
                                           "shared_router",
                                           "experts_weight",
                                           "dense_post_norm",
                                           "experts_post_norm",
                                           "mlp_post_norm",
                                           "own_gate",
                                           "own_out",
                                           "own_post_norm",
                                           "out_scale",
                                           "final_norm",
                                           "head"};

constexpr std::string_view kScalingNames[] = {"no", "linear", "dynamic", "llama3", "yarn", "longrope"};

// Llama 3.1's rule: wavelengths beyond original_context / low_freq_factor are stretched by `factor`, those below
// original_context / high_freq_factor are kept, and a linear ramp joins them.
double llama3_scaled(double frequency, const RopeSpec& r) {
  const double turns = r.original_context * frequency / (2 * std::numbers::pi);
  if (turns <= r.low_freq_factor) return frequency / r.factor;
  if (turns >= r.high_freq_factor) return frequency;
  const double keep = (turns - r.low_freq_factor) / (r.high_freq_factor - r.low_freq_factor);
  return frequency * (keep + (1 - keep) / r.factor);
}

// YaRN (Peng et al. 2023, arXiv 2309.00071, 3.2): pairs that turn less than beta_slow times within original_context are
// stretched by `factor`, those that turn more than beta_fast times are kept, a linear ramp over the pairs joins them.
double yarn_scaled(double frequency, double pair, const RopeSpec& r) {
  const auto pair_of = [&](double turns) {
    return r.dims * std::log(r.original_context / (turns * 2 * std::numbers::pi)) / (2 * std::log(double(r.theta)));
  };
  double first = pair_of(r.beta_fast), last = pair_of(r.beta_slow);
  if (r.truncate) first = std::floor(first), last = std::ceil(last);
  first = std::max(first, 0.0), last = std::min(last, r.dims - 1.0);
  const double width = first == last ? 0.001 : last - first;  // the published code's way around 0 / 0
  const double stretch = std::clamp((pair - first) / width, 0.0, 1.0);
  return frequency * (1 - stretch + stretch / r.factor);
}

// Dynamic NTK: theta grows with the length, so that the slowest pair turns as far as it did in original_context.
double dynamic_theta(const RopeSpec& r, int length) {
  const double stretch = double(r.factor) * std::max(1.0, double(length) / r.original_context) - (double(r.factor) - 1);
  return double(r.theta) * std::pow(stretch, double(r.dims) / (r.dims - 2));
}

double scaled(double frequency, size_t pair, int length, const RopeSpec& r) {
  switch (r.scaling) {
    case RopeScaling::linear:
      return frequency / r.factor;
    case RopeScaling::llama3:
      return llama3_scaled(frequency, r);
    case RopeScaling::yarn:
      return yarn_scaled(frequency, double(pair), r);
    case RopeScaling::longrope:
      return frequency / (r.regime(length) ? r.long_factors : r.short_factors)[pair];
    default:
      return frequency;
  }
}

}  // namespace

std::string_view name_of(Role role) { return kRoleNames[size_t(role)]; }

bool is_norm(Role role) {
  using enum Role;
  constexpr Role kVectors[] = {
      embed_norm,        own_norm,      attn_norm,     q_a_norm,    kv_a_norm,      conv,
      decay_bias,        decay_rate,    o_norm,        q_norm,      k_norm,         sinks,
      attn_post_norm,    mlp_norm,      experts_norm,  router_norm, experts_weight, dense_post_norm,
      experts_post_norm, mlp_post_norm, own_post_norm, out_scale,   final_norm};
  return std::ranges::count(kVectors, role) != 0;
}

bool stays_float(Role role) {
  return role == Role::router || role == Role::shared_router || role == Role::beta || role == Role::decay ||
         role == Role::own_projection;
}

bool in_attention(Role role) { return role >= Role::q_a && role <= Role::sinks; }

std::vector<float> RopeSpec::frequencies(int length) const {
  const double base = scaling == RopeScaling::dynamic && dims > 2 ? dynamic_theta(*this, length) : double(theta);
  std::vector<float> f(size_t(dims / 2));
  for (size_t i = 0; i < f.size(); ++i) {
    const double plain = std::pow(base, -2.0 * double(i) / dims);
    f[i] = turned && int(i) >= turned ? 0 : float(scaled(plain, i, length, *this));
  }
  return f;
}

int RopeSpec::regime(int length) const {
  if (length <= original_context) return 0;
  return scaling == RopeScaling::dynamic ? length : scaling == RopeScaling::longrope;
}

int RopeSpec::context(int max_positions) const {
  const bool multiplies =
      scaling == RopeScaling::linear || scaling == RopeScaling::yarn || scaling == RopeScaling::dynamic;
  const double original = scaling == RopeScaling::yarn ? original_context : max_positions;
  return int(std::min(original * (multiplies ? double(factor) : 1.0), double(INT32_MAX)));
}

std::string RopeSpec::text() const {
  std::string t = std::string(kScalingNames[size_t(scaling)]) + " rope scaling";
  if (scaling != RopeScaling::none) t += fmt::format(" by {}", factor);
  if (scaling == RopeScaling::yarn || scaling == RopeScaling::longrope) t += fmt::format(" of {}", original_context);
  return t;
}

namespace {

// 2^(-8 i / n) for i = 1 ... n, the least power of two >= n: of them first those with even i, as if there were half
// as many, then the others, as many as are needed.
double alibi_slope(int head, int heads) {
  int n = 1;
  while (n < heads) n *= 2;
  if (n == heads) return std::exp2(-8.0 * (head + 1) / n);
  const int i = head < n / 2 ? 2 * (head + 1) : 2 * (head - n / 2) + 1;
  return std::exp2(-8.0 * i / n);
}

}  // namespace

std::vector<float> AttentionSpec::alibi_slopes() const {
  std::vector<float> slopes;
  for (int h = 0; alibi != 0 && h < heads; ++h) slopes.push_back(float(double(alibi) * alibi_slope(h, heads)));
  return slopes;
}

std::vector<int> BlockSpec::mlps() const {
  std::vector<int> all(size_t(experts ? experts->count : 1));
  std::iota(all.begin(), all.end(), 0);
  if (experts && experts->shared_hidden) all.push_back(kSharedExpert);
  return all;
}

std::vector<Param> BlockSpec::params() const {
  using enum Role;
  std::vector<Param> p;
  const bool before = placement != NormPlacement::after, after = placement != NormPlacement::before;
  if (before && norm.gain) p.push_back({attn_norm});
  if (attention.latent && attention.latent->q_rank) p.insert(p.end(), {{q_a}, {q_a_norm}});
  p.push_back({q});
  if (attention.latent) p.insert(p.end(), {{kv_a}, {k_rope}, {kv_a_norm}});
  if (!borrows_keys()) p.push_back({k});
  if (!borrows_keys() && attention.values != Values::normalised_keys) p.push_back({v});
  if (attention.gated || delta) p.push_back({o_gate});
  if (delta) p.insert(p.end(), {{beta}, {decay}, {conv}, {decay_bias}, {decay_rate}, {o_norm}});
  p.push_back({o});
  if (attention.head_norm != HeadNorm::none) p.push_back({q_norm});
  if (attention.head_norm != HeadNorm::none && !borrows_keys()) p.push_back({k_norm});
  if (attention.sinks) p.push_back({sinks});
  if (after && norm.gain) p.push_back({attn_post_norm});
  if (before && norm.gain && parallel != Parallel::one_norm) p.push_back({mlp_norm});
  if (experts && experts->apart)
    p.insert(p.end(), {{experts_norm}, {router_norm}, {dense_post_norm}, {experts_post_norm}});
  if (experts) p.push_back({router});
  if (experts && experts->weighted) p.push_back({experts_weight});
  if (experts && experts->shared_gate) p.push_back({shared_router});
  for (int e : mlps()) {
    if (mlp.gated) p.push_back({gate, e});
    p.insert(p.end(), {{up, e}, {down, e}});
  }
  if (after && norm.gain) p.push_back({mlp_post_norm});
  if (own_width) p.insert(p.end(), {{own_gate}, {own_out}, {own_post_norm}});
  if (out_scaled) p.push_back({out_scale});
  return p;
}

// Norms of heads have no bias in any family.
NormSpec BlockSpec::norm_of(Role role) const {
  if (role == Role::q_a_norm || role == Role::kv_a_norm) return attention.latent.value().norm;
  if (delta && in_attention(role)) return delta->norm;
  NormSpec n = norm;
  if (role == Role::q_norm || role == Role::k_norm || role == Role::sinks) n.gain = true, n.bias = false;
  return n;
}

bool BlockSpec::has_bias(Param p) const {
  using enum Role;
  switch (p.role) {
    case q:
    case k:
    case v:
    case o_gate:
      return attention.qkv_bias;
    case o:
      return attention.o_bias;
    case router:
      return experts && (experts->bias || experts->correction);
    case gate:
    case up:
    case down:
      return mlp.bias;
    default:
      return is_norm(p.role) && norm_of(p.role).bias;
  }
}

namespace {

std::pair<int64_t, int64_t> delta_shape(const DeltaSpec& d, Role role, int64_t dim) {
  using enum Role;
  switch (role) {
    case q:
    case k:
      return {d.key_rows(), dim};
    case v:
    case o_gate:
      return {d.value_rows(), dim};
    case beta:
    case decay:
      return {d.value_heads, dim};
    case conv:
      return {int64_t(d.channels()) * d.kernel, 0};
    case decay_bias:
    case decay_rate:
      return {d.value_heads, 0};
    case o_norm:
      return {d.value_dim, 0};
    case o:
      return {dim, d.value_rows()};
    default:
      fail("model", "{} is no parameter of a delta net", name_of(role));
  }
}

}  // namespace

std::pair<int64_t, int64_t> BlockSpec::shape(Param p) const {
  using enum Role;
  if (delta && in_attention(p.role)) return delta_shape(*delta, p.role, dim);
  const std::optional<LatentSpec>& latent = attention.latent;
  switch (p.role) {
    case q_a:
      return {latent.value().q_rank, dim};
    case kv_a:
      return {latent.value().kv_rank, dim};
    case k_rope:
      return {attention.rope.dims, dim};
    case q_a_norm:
      return {latent.value().q_rank, 0};
    case kv_a_norm:
      return {latent.value().kv_rank, 0};
    case q:
      return {attention.q_rows(), latent && latent->q_rank ? latent->q_rank : dim};
    case k:
      return latent ? std::pair<int64_t, int64_t>(attention.kv_heads * attention.unrotated(), latent->kv_rank)
                    : std::pair<int64_t, int64_t>(attention.kv_rows(), dim);
    case v:
      return {attention.v_rows(), latent ? latent->kv_rank : dim};
    case o_gate:
      return {attention.out_rows(), dim};
    case o:
      return {dim, attention.out_rows()};
    case gate:
    case up:
      return {mlp_hidden(p.expert), dim};
    case down:
      return {dim, mlp_hidden(p.expert)};
    case router:
      return {experts.value().count, dim};
    case shared_router:
      return {1, dim};
    case q_norm:
      return {attention.head_norm == HeadNorm::head ? attention.head_dim : attention.q_rows(), 0};
    case k_norm:
      return {attention.head_norm == HeadNorm::head ? attention.head_dim : attention.kv_rows(), 0};
    case sinks:
      return {attention.heads, 0};
    case own_gate:
      return {own_width, dim};
    case own_out:
      return {dim, own_width};
    case experts_weight:
      return {experts.value().count, 0};
    case out_scale:
      return {1, 0};
    case experts_norm:
    case router_norm:
    case dense_post_norm:
    case experts_post_norm:
    case own_post_norm:
    case attn_norm:
    case attn_post_norm:
    case mlp_norm:
    case mlp_post_norm:
      return {dim, 0};
    default:
      fail("model", "{} is no parameter of a block", name_of(p.role));
  }
}

}  // namespace awq
