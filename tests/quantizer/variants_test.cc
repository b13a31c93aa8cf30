// Other programs' searches against their definition, written again in double precision: attention, MLP and all.
#include "quantizer/variants.h"

#include <gtest/gtest.h>

#include "base/numeric.h"
#include "quant/published.h"
#include "quantizer/block_fixture.h"

namespace awq {
namespace {

using Matrix = std::vector<std::vector<double>>;  // [rows][cols]

Matrix matrix(const Tensor& t) {
  Matrix m;
  for (int64_t r = 0; r < t.shape()[0]; ++r) {
    const auto row = t.as<float>().subspan(size_t(r * t.shape()[1]), size_t(t.shape()[1]));
    m.emplace_back(row.begin(), row.end());
  }
  return m;
}

Matrix times(const Matrix& x, const Matrix& w) {
  Matrix y(x.size(), std::vector<double>(w.size()));
  for (size_t t = 0; t < x.size(); ++t)
    for (size_t n = 0; n < w.size(); ++n)
      for (size_t k = 0; k < w[n].size(); ++k) y[t][n] += x[t][k] * w[n][k];
  return y;
}

double distance(const Matrix& a, const Matrix& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i)
    for (size_t j = 0; j < a[i].size(); ++j) sum += (a[i][j] - b[i][j]) * (a[i][j] - b[i][j]);
  return sum;
}

using Weights = std::map<Role, Matrix>;

void rotate(Matrix& x, const AttentionSpec& a, size_t length) {
  const size_t half = size_t(a.head_dim) / 2;
  for (size_t t = 0; t < x.size(); ++t)
    for (size_t head = 0; head < x[t].size(); head += 2 * half)
      for (size_t i = 0; i < half; ++i) {
        const double angle = double(t % length) * std::pow(10000.0, -double(i) / double(half));
        double &u = x[t][head + i], &v = x[t][head + half + i];
        const double first = u * std::cos(angle) - v * std::sin(angle);
        v = v * std::cos(angle) + u * std::sin(angle);
        u = first;
      }
}

Matrix attention(const Matrix& x, const Weights& w, const AttentionSpec& a, size_t length) {
  Matrix q = times(x, w.at(Role::q)), k = times(x, w.at(Role::k)), v = times(x, w.at(Role::v));
  rotate(q, a, length);
  rotate(k, a, length);
  Matrix mixed(x.size(), std::vector<double>(size_t(a.q_rows())));
  const size_t d = size_t(a.head_dim), shared = size_t(a.heads / a.kv_heads);
  for (size_t t = 0; t < x.size(); ++t)
    for (size_t h = 0; h < size_t(a.heads); ++h) {
      std::vector<double> p;
      double sum = 0;
      for (size_t s = t / length * length; s <= t; ++s) {
        double score = 0;
        for (size_t i = 0; i < d; ++i) score += q[t][h * d + i] * k[s][h / shared * d + i];
        p.push_back(std::exp(score / std::sqrt(double(d))));
        sum += p.back();
      }
      for (size_t s = 0; s < p.size(); ++s)
        for (size_t i = 0; i < d; ++i)
          mixed[t][h * d + i] += p[s] / sum * v[t / length * length + s][h / shared * d + i];
    }
  return times(mixed, w.at(Role::o));
}

Matrix mlp(const Matrix& x, const Weights& w) {
  Matrix g = times(x, w.at(Role::gate));
  const Matrix u = times(x, w.at(Role::up));
  for (size_t t = 0; t < g.size(); ++t)
    for (size_t i = 0; i < g[t].size(); ++i) g[t][i] *= u[t][i] / (1 + std::exp(-g[t][i]));
  return times(g, w.at(Role::down));
}

using Round = double (*)(double);
double to_half(double v) { return double(f16_to_f32(f32_to_f16(float(v)))); }
double to_bfloat(double v) { return double(bf16_to_f32(f32_to_bf16(float(v)))); }
double exact(double v) { return v; }

// What each program computes, by its published code.
struct Program {
  const char* name;
  Round r, of_means;
  bool weight_term, identity, extends;
  double steps;
  int points;
};

constexpr int kBits = 3;
constexpr double kLevels = 7;

void round_group(const Program& p, double* w, size_t n) {
  const Round r = p.r;
  double low = p.extends ? 0.0 : w[0], high = low;
  for (size_t i = 0; i < n; ++i) low = std::min(low, w[i]), high = std::max(high, w[i]);
  double scale = r(high - low), zero = 0;
  if (p.extends) {  // codes -4 .. 3
    scale = r(scale / kLevels);
    zero = std::nearbyint(std::clamp(r(-4 - r(low / scale)), -4.0, 3.0));
  } else {
    scale = r(std::max(scale, r(1e-5)) / kLevels);
    zero = std::clamp(-std::nearbyint(r(low / scale)), 0.0, kLevels);
  }
  for (size_t i = 0; i < n; ++i) {
    const double q = p.extends ? std::nearbyint(std::clamp(r(r(w[i] / scale) + zero), -4.0, 3.0))
                               : std::clamp(r(std::nearbyint(r(w[i] / scale)) + zero), 0.0, kLevels);
    w[i] = r(r(q - zero) * scale);
  }
}

Matrix tried(const Program& p, Matrix w, const std::vector<double>& s, size_t group) {
  for (auto& row : w) {
    for (size_t c = 0; c < row.size(); ++c) row[c] = p.r(p.r(row[c]) * s[c]);
    for (size_t c = 0; c < row.size(); c += group) round_group(p, &row[c], group);
    for (size_t c = 0; c < row.size(); ++c) row[c] = p.r(row[c] / s[c]);
  }
  return w;
}

std::vector<double> weight_means(const Program& p, const std::vector<Matrix>& matrices, size_t group) {
  std::vector<double> sum(matrices[0][0].size());
  double rows = 0;
  for (const Matrix& m : matrices)
    for (const auto& row : m) {
      for (size_t begin = 0; begin < row.size(); begin += group) {
        double largest = 0;
        for (size_t c = begin; c < begin + group; ++c) largest = std::max(largest, std::abs(p.r(row[c])));
        for (size_t c = begin; c < begin + group; ++c) sum[c] += p.r(std::abs(p.r(row[c])) / p.r(largest + 1e-6));
      }
      ++rows;
    }
  for (double& s : sum) s = p.extends ? s / rows : p.r(s / rows);
  return sum;
}

std::vector<double> scales(const Program& p, double ratio, const std::vector<double>& m, const std::vector<double>& w) {
  const Round r = p.weight_term ? p.of_means : p.r;
  std::vector<double> s;
  for (size_t i = 0; i < m.size(); ++i) {
    double v = r(std::pow(m[i], r(ratio)));
    if (p.weight_term) v = r(v / r(r(std::pow(w[i], r(1 - ratio))) + 1e-4));
    s.push_back(std::max(v, r(1e-4)));
  }
  const double high = *std::ranges::max_element(s), low = *std::ranges::min_element(s);
  const double middle = r(std::sqrt(r(high * low)));
  for (double& v : s) v = r(v / middle);
  return s;
}

// {ratio, its loss} of the least, the first of equals.
std::pair<double, double> best(const Program& p, const std::vector<double>& mean_abs, const std::vector<Matrix>& of,
                               size_t group, const std::function<double(const std::vector<double>&)>& loss) {
  std::vector<double> m;
  for (double v : mean_abs) m.push_back(p.of_means(v));
  const std::vector<double> w = weight_means(p, of, group);
  std::pair<double, double> least(-1, INFINITY);
  const auto consider = [&](double ratio, const std::vector<double>& s) {
    if (const double l = loss(s); l < least.second) least = {ratio, l};
  };
  if (p.identity) consider(-1, std::vector<double>(m.size(), 1));
  for (int i = 0; i < p.points; ++i) consider(i / p.steps, scales(p, i / p.steps, m, w));
  return least;
}

struct Definition {
  Definition(SmallBlock& block, const Program& program) : p(program), spec(block.w.spec), seen(block.seen()) {
    for (Role r : {Role::q, Role::k, Role::v, Role::o, Role::gate, Role::up, Role::down})
      w[r] = matrix(block.w.tensor({r}).to(DType::f32));
  }
  std::pair<double, double> chosen(const ScaleGroup& g) const {
    const SiteStatistics& site = seen.sites.at(g.consumers.front());
    std::vector<double> m;
    for (float v : site.mean_abs()) m.push_back(double(v));
    std::vector<Matrix> matrices;
    for (Param c : g.consumers) matrices.push_back(w.at(c.role));
    if (g.consumers.size() == 1)
      return best(p, m, matrices, kGroup, [&, gram = matrix_of(site.gram)](const std::vector<double>& s) {
        return through(tried(p, matrices[0], s, kGroup), matrices[0], gram);
      });
    const Matrix x = matrix(site.sample), reference = module(g, x, w);
    return best(p, m, matrices, kGroup, [&](const std::vector<double>& s) {
      Weights mine = w;
      for (Param c : g.consumers) mine[c.role] = tried(p, w.at(c.role), s, kGroup);
      return distance(module(g, x, mine), reference);
    });
  }
  Matrix module(const ScaleGroup& g, const Matrix& x, const Weights& weights) const {
    return g.consumers.front().role == Role::q ? attention(x, weights, spec.attention, size_t(seen.sequence_tokens))
                                               : mlp(x, weights);
  }
  // The sum over rows of e C e^T.
  static double through(const Matrix& a, const Matrix& b, const Matrix& gram) {
    double sum = 0;
    for (size_t r = 0; r < a.size(); ++r)
      for (size_t i = 0; i < a[r].size(); ++i) {
        double product = 0;
        for (size_t j = 0; j < a[r].size(); ++j) product += gram[i][j] * (a[r][j] - b[r][j]);
        sum += (a[r][i] - b[r][i]) * product;
      }
    return sum;
  }
  static Matrix matrix_of(const Gram& gram) {
    const auto n = size_t(gram.channels());
    Matrix m(n, std::vector<double>(n));
    for (size_t i = 0; i < n; ++i)
      for (size_t j = 0; j < n; ++j) m[i][j] = double(gram.at(int64_t(i), int64_t(j)));
    return m;
  }

  static constexpr size_t kGroup = 32;
  const Program& p;
  BlockSpec spec;
  BlockCalibration seen;
  Weights w;
};

// Losses are f32 sums here and double there; ratios are the same all the same.
void expect_same_choices(SmallBlock& block, const Program& program) {
  const Definition definition(block, program);
  const Solution s =
      block.solve(*make_awq_variant(program.name), {.bits = kBits, .group_size = int(Definition::kGroup)});
  ASSERT_EQ(s.groups.size(), 4u);
  for (const GroupResult& g : s.groups) {
    if (g.group.tied_heads > 1) {  // v and o have other shapes: these programs do not scale there
      EXPECT_TRUE(g.chosen.identity());
      continue;
    }
    const auto [ratio, loss] = definition.chosen(g.group);
    const std::string where = fmt::format("{} {}", program.name, name_of(g.group.consumers.front().role));
    EXPECT_FLOAT_EQ(g.chosen.identity() ? -1 : g.chosen.ratio, float(ratio)) << where;
    EXPECT_NEAR(g.loss / loss, 1, 1e-3) << where;
  }
}

TEST(Variants, RatiosAreThoseOfTheDefinitionInDouble) {
  SmallBlock block(4);
  block.options = {.sample_sequences = 2, .sample_rows = 64};  // few, for the definition is slow
  for (const Program& p : {Program{"llm-awq", to_half, to_half, false, false, false, 20, 20},
                           Program{"autoawq", exact, exact, true, false, false, 20, 20},
                           Program{"llm-compressor", exact, exact, true, true, true, 18, 19}})
    expect_same_choices(block, p);
}

TEST(Variants, RatiosOfACheckpointInBfloatAreThoseOfItsArithmetic) {
  SmallBlock block(2);
  block.options = {.sample_sequences = 2, .sample_rows = 64};
  for (auto& [param, t] : block.w.at)
    if (!is_norm(param.role)) t = std::get<Tensor>(t).to(DType::bf16);
  for (const Program& p : {Program{"llm-awq", to_half, to_half, false, false, false, 20, 20},
                           Program{"autoawq", to_bfloat, to_bfloat, true, false, false, 20, 20},
                           Program{"llm-compressor", to_bfloat, exact, true, true, true, 18, 19}})
    expect_same_choices(block, p);
}

// AutoAWQ cuts in the checkpoint's type, f32 here, and then casts to f16: bounds are no f16 before.
TEST(Variants, WeightsAreScaledThenCutThenRounded) {
  SmallBlock block;
  const Solution s = block.solve(*make_awq_variant("autoawq"), {.bits = 4, .group_size = 32});
  const auto layer = std::ranges::find(s.layers, Param{Role::down}, &LayerResult::param);
  const auto group =
      std::ranges::find_if(s.groups, [](const auto& g) { return g.group.consumers[0].role == Role::down; });
  const Tensor& w = block.w.tensor({Role::down});
  const QMatrix& q = s.matrices.at({Role::down});
  for (size_t at = 0; at < layer->ranges.size(); ++at) {
    std::vector<float> cut;
    for (size_t i = 32 * at; i < 32 * (at + 1); ++i) {
      const float scaled = w.as<float>()[i] * group->scales[i % size_t(w.shape()[1])];
      cut.push_back(float(to_half(double(std::clamp(scaled, layer->ranges[at].low, layer->ranges[at].high)))));
    }
    const PublishedGroup expected = quantize_published(cut, 4, false, Arithmetic::half);
    EXPECT_EQ(q.scales.as<float>()[at], expected.scale) << "group " << at;
    EXPECT_EQ(q.zeros.as<uint8_t>()[at], expected.zero) << "group " << at;
    for (size_t i = 0; i < 32; ++i) EXPECT_EQ(q.codes.as<uint8_t>()[32 * at + i], expected.codes[i]) << "group " << at;
  }
}

TEST(Variants, CodesAreWithinTheRangesAndQueriesAndKeysAreNotCut) {
  SmallBlock block;
  for (const Variant& v : variants()) {
    const Solution s = block.solve(*make_awq_variant(v.name), {.bits = 4, .group_size = 32});
    ASSERT_EQ(s.layers.size(), 7u);
    for (const LayerResult& l : s.layers) {
      const bool cut = v.clips && l.param.role != Role::q && l.param.role != Role::k;
      EXPECT_EQ(!l.ranges.empty(), cut) << v.name << ' ' << name_of(l.param.role);
      EXPECT_LT(l.error, 0.02) << v.name << ' ' << name_of(l.param.role);
      EXPECT_GT(l.error, 0) << v.name;
    }
  }
  EXPECT_THROW(make_awq_variant("awq2"), Error);
}

}  // namespace
}  // namespace awq
