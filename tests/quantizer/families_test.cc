// No method is worse than rounding by the measure that it optimises: every method, on a block of every tiny model.
#include "engine/golden_fixture.h"
#include "formats/load.h"
#include "model/stream.h"
#include "quantizer/block_fixture.h"
#include "quantizer/float_set.h"
#include "quantizer/quantize.h"

namespace awq {
namespace {

// Losses are sums of some 1e4 products in f32, computed twice in different orders: 1e4 * 2^-24 if all errors agreed.
constexpr double kSlack = 1 + 6e-4;

class MethodsOfFamily : public testing::TestWithParam<std::string> {
 protected:
  MethodsOfFamily() {
    std::mt19937 rng(5);
    hidden_ = random_tensor({96, source_->spec().dim}, rng);
    for (size_t i = 0; i < hidden_.as<float>().size(); ++i) hidden_.as<float>()[i] *= i % 32 == 3 ? 8.f : 1.f;
    std::vector<int32_t> tokens;
    for (int32_t t = 0; t < 96; ++t) tokens.push_back(t % source_->spec().vocab);
    hidden_ = stream_of(source_->spec(), hidden_, tokens);
    const HiddenStates states{96, 32, [&](int64_t a, int64_t b) { return hidden_.rows(a, b).clone(); }, {}};
    BlockCosts costs;
    seen_ = calibrate(*dev_, host_, upload(*dev_, weights()), 0, states, {}, costs);
  }

  BlockWeights weights() { return load_float_block(*source_, 0, pool_); }

  struct Solved {
    BlockWeights w;  // as they were folded
    Solution s;
  };
  Solved solve(const Method& method, int bits) {
    spec_.bits = bits;
    if (!group_fits(source_->spec(), spec_.group_size)) spec_.group_size = QuantSpec::kWholeRow;
    Solved r{weights(), {}};
    BlockCosts costs;
    r.s = method.solve(r.w, upload(*dev_, weights()), seen_, {spec_, *dev_, host_, costs, {}});
    return r;
  }

  /// Of a matrix whose inputs were divided by `s`, and of plain rounding in its place.
  void expect_no_worse(const Rows& w, const QMatrix& q, const ScaleGroup& g, std::span<const float> s, Param p) {
    const QuadraticForm form(host_, seen_.sites.at(g.consumers.front()).gram);
    EXPECT_LE(form.loss(w, rows_of(q), s), kSlack * form.loss(w, rows_of(quantize(pieces_of(w), spec_, pool_)), s))
        << spec_.bits << ' ' << name_of(p.role);
  }

  ThreadPool pool_{2};
  Host host_{pool_, float_set()};
  std::unique_ptr<Backend> dev_ = cpu_backend(pool_, host_.kernels);
  std::unique_ptr<Checkpoint> source_ = Checkpoint::open(golden::folder(GetParam()));
  QuantSpec spec_{.group_size = 32};
  Tensor hidden_;
  BlockCalibration seen_;
};

TEST_P(MethodsOfFamily, AreNoWorseThanRounding) {
  for (const MethodEntry& method : methods())
    for (const int bits : {2, 3, 4, 8}) {
      SCOPED_TRACE(method.name);
      const Solved r = solve(*method.make(), bits);
      for (const GroupResult& g : r.s.groups) EXPECT_LE(g.loss, g.identity_loss) << bits;
      const BlockWeights original = weights();
      for (const ScaleGroup& g : scale_groups(r.w.spec))
        for (const Param p : g.consumers) {
          const QMatrix& q = r.s.matrices.at(p);
          const std::vector<float> s = r.s.scales(g, q.cols());
          expect_no_worse(rows_of(r.w, p), q, g, s, p);
          const auto f = r.w.factors.find(p);
          const bool divided = f != r.w.factors.end() && !f->second.rows.empty();
          // Alone at its input it is judged on its own output, as that was before any scale.
          if (g.consumers.size() > 1 || divided || r.w.spec.experts) continue;
          const QuadraticForm form(host_, seen_.sites.at(p).gram);
          const Rows w = rows_of(original, p);
          EXPECT_LE(form.loss(w, unscaled(q, s)), kSlack * form.loss(w, rows_of(quantize(pieces_of(w), spec_, pool_))))
              << bits << ' ' << name_of(p.role);
        }
    }
}

// Ratio 0 of llm-awq, and the first candidate of llm-compressor, are no scaling; AutoAWQ has none such.
class VariantsOfFamily : public MethodsOfFamily {};

TEST_P(VariantsOfFamily, ThatMayScaleNothingAreNoWorseByTheirOwnLoss) {
  for (const char* variant : {"llm-awq", "llm-compressor"})
    for (const int bits : {2, 3, 4, 8}) {
      SCOPED_TRACE(variant);
      const Solved r = solve(*make_method("awq", variant), bits);
      for (const GroupResult& g : r.s.groups) EXPECT_LE(g.loss, g.identity_loss) << bits;
    }
}

// A model of each kind of block: their losses take the longest.
INSTANTIATE_TEST_SUITE_P(Families, VariantsOfFamily,
                         testing::Values("llama-bias", "opt", "bloom", "falcon-7b", "gemma2", "mixtral"),
                         golden::name_of_case);
INSTANTIATE_TEST_SUITE_P(Families, MethodsOfFamily, testing::ValuesIn(golden::names()), golden::name_of_case);

}  // namespace
}  // namespace awq
