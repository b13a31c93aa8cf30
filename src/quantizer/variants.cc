// Other programs' AWQ. Every candidate of the grid is judged, in order, and the first of the smallest losses wins.
#include "quantizer/variants.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "quant/published.h"
#include "quantizer/awq.h"
#include "quantizer/module_loss.h"

namespace awq {

std::span<const Variant> variants() {
  static constexpr std::array table = {
      Variant{.name = "llm-awq",
              .half = true,
              .weight_term = false,
              .identity = false,
              .steps = 20,
              .points = 20,
              .clips = true,
              .extends = false},
      Variant{.name = "autoawq",
              .half = false,
              .weight_term = true,
              .identity = false,
              .steps = 20,
              .points = 20,
              .clips = true,
              .extends = false},
      Variant{.name = "llm-compressor",
              .half = false,
              .weight_term = true,
              .identity = true,
              .steps = 18,
              .points = 19,
              .clips = false,
              .extends = true},
  };
  return table;
}

namespace {

Arithmetic arithmetic_of(DType t) {
  if (t == DType::f16) return Arithmetic::half;
  return t == DType::bf16 ? Arithmetic::bfloat : Arithmetic::single;
}

/// Both programs' codes, unsigned.
PublishedGroup rounded(const Variant& v, std::span<const float> w, const QuantSpec& spec, Arithmetic type) {
  PublishedGroup g = v.extends ? quantize_compressed_tensors(w, spec.bits, spec.symmetric, type)
                               : quantize_published(w, spec.bits, spec.symmetric, type);
  if (!v.extends && !spec.symmetric) return g;
  g.zero += spec.middle();
  for (int& q : g.codes) q += spec.middle();
  return g;
}

class Search {
 public:
  Search(const Variant& v, BlockWeights& w, const Block& block, const BlockCalibration& calibration,
         const SolveContext& context)
      : v_(v), w_(w), block_(block), calibration_(calibration), c_(context) {}

  Solution run() {
    const std::vector<ScaleGroup> groups = scale_groups(w_.spec);
    for (const ScaleGroup& g : groups)
      if (g.producer) search(g, is_searched(g) ? grid() : std::vector<Candidate>(1));
    for (const ScaleGroup& g : groups)
      for (Param p : g.consumers)
        rounding_[p] = relative_loss(c_.host, rows_of(w_, p), effective(rows_of(w_, p), ones(g), c_.spec), gram(g));
    for (const GroupResult& g : solution_.groups) fold(w_, g.group, g.scales);
    for (const ScaleGroup& g : groups)
      for (Param p : g.consumers) round(p, g);
    return std::move(solution_);
  }

 private:
  const Gram& gram(const ScaleGroup& g) const { return calibration_.sites.at(g.consumers.front()).gram; }
  std::vector<float> ones(const ScaleGroup& g) const { return std::vector<float>(size_t(gram(g).channels()), 1.f); }
  Arithmetic searched_in(Param p) const { return v_.half ? Arithmetic::half : arithmetic_of(w_.tensor(p).dtype()); }

  // v feeds o only where their matrices have one shape, so never with grouped queries.
  bool is_searched(const ScaleGroup& g) const {
    return g.consumers.front().role != Role::o || w_.spec.shape(*g.producer) == w_.spec.shape(g.consumers.front());
  }

  std::vector<Candidate> grid() const {
    std::vector<Candidate> c;
    if (v_.identity) c.push_back({});
    for (int i = 0; i < v_.points; ++i) c.push_back({float(i) / float(v_.steps), v_.weight_term});
    return c;
  }

  void search(const ScaleGroup& g, const std::vector<Candidate>& candidates) {
    const Timed timed(c_.costs.search);
    const Arithmetic type = searched_in(g.consumers.front());
    // llm-compressor has its means in f32.
    const Arithmetic of_means = v_.extends ? Arithmetic::single : type;
    std::vector<float> m = calibration_.sites.at(g.consumers.front()).mean_abs();
    for (float& x : m) x = rounded_to(double(x), of_means);
    const std::vector<double> wm = v_.weight_term ? weight_means(g, type) : std::vector<double>();
    const Judge judge = judge_of(g, type);
    std::optional<GroupResult> best;
    for (const Candidate& c : candidates) {
      const std::vector<float> s = scales(c, m, wm, of_means);
      const double loss = judge(s);
      if (std::isfinite(loss) && (!best || loss < best->loss))
        best = GroupResult{.group = g, .chosen = c, .loss = loss, .scales = s};
    }
    if (!best)
      fail("quantize", "no finite loss at the input of {}; the weights or activations are damaged",
           name_of(g.consumers.front().role));
    const auto [low, high] = std::minmax_element(best->scales.begin(), best->scales.end());
    best->smallest = *low, best->largest = *high;
    best->identity_loss = judge(ones(g));
    solution_.groups.push_back(std::move(*best));
  }

  /// Means over rows of |w| / (largest |w| of its group + 1e-6), each quotient rounded, as are the means but
  /// llm-compressor's, which are f64.
  std::vector<double> weight_means(const ScaleGroup& g, Arithmetic type) const {
    std::vector<double> sum(size_t(gram(g).channels()));
    double rows = 0;
    for (Param p : g.consumers) {
      const Rows w = folded(p, type);
      std::vector<float> row(sum.size());
      for (int64_t r = 0; r < w.rows; ++r, ++rows) {
        w.read(r, 1, row.data());
        add_shares(row, type, sum);
      }
    }
    for (double& s : sum) s = v_.extends ? s / rows : double(rounded_to(s / rows, type));
    return sum;
  }

  void add_shares(std::span<const float> row, Arithmetic type, std::vector<double>& sum) const {
    const auto g = size_t(c_.spec.of_width(int64_t(row.size())).group_size);
    for (size_t begin = 0; begin < row.size(); begin += g) {
      float largest = 0;
      for (size_t c = begin; c < begin + g; ++c) largest = std::max(largest, std::abs(row[c]));
      largest = rounded_to(double(largest + 1e-6f), type);
      for (size_t c = begin; c < begin + g; ++c) sum[c] += double(rounded_to(double(std::abs(row[c]) / largest), type));
    }
  }

  /// Power, quotient, clamp, then the normalization, after which nothing is clamped. PyTorch rounds the exponent to the
  /// type of the base.
  std::vector<float> scales(Candidate c, std::span<const float> m, std::span<const double> wm, Arithmetic type) const {
    const double ratio = double(c.ratio);
    const auto r = [&](double x) { return v_.extends && c.weight_term ? x : double(rounded_to(x, type)); };
    std::vector<double> s(m.size());
    for (size_t i = 0; i < s.size(); ++i) {
      s[i] = r(std::pow(double(m[i]), r(ratio)));
      if (c.weight_term) s[i] = r(s[i] / r(r(std::pow(wm[i], r(1 - ratio))) + 1e-4));
      s[i] = std::max(s[i], r(1e-4));
    }
    const auto [low, high] = std::minmax_element(s.begin(), s.end());
    const double middle = r(std::sqrt(r(*high * *low)));
    std::vector<float> out;
    for (double x : s) {
      const double normal = r(x / middle);
      out.push_back(std::isfinite(normal) ? float(normal) : 1.f);
    }
    return out;
  }

  /// round(w * s) / s as the program computes it.
  Rows tried(Param p, std::span<const float> s, Arithmetic type) const {
    const Rows w = folded(p, type);
    const QuantSpec spec = c_.spec.of_width(w.cols);
    return {w.rows, w.cols, [=, v = v_](int64_t first, int64_t count, float* to) {
              w.read(first, count, to);
              const auto g = int64_t(spec.group_size);
              std::vector<float> group(static_cast<size_t>(g));
              for (int64_t begin = 0; begin < count * w.cols; begin += g) {
                const float* own = s.data() + begin % w.cols;
                for (int64_t i = 0; i < g; ++i)
                  group[size_t(i)] = rounded_to(double(to[begin + i]) * double(own[i]), type);
                const PublishedGroup q = rounded(v, group, spec, type);
                for (int64_t i = 0; i < g; ++i)
                  to[begin + i] = rounded_to(double(q.dequantized[size_t(i)]) / double(own[i]), type);
              }
            }};
  }

  using Judge = std::function<double(std::span<const float> s)>;
  Judge judge_of(const ScaleGroup& g, Arithmetic type) const {
    if (g.consumers.size() == 1 || !reads_module_input(w_.spec, g))
      return [this, g, type, form = QuadraticForm(c_.host, gram(g), Products::exact)](std::span<const float> s) {
        double loss = 0;
        for (Param p : g.consumers) loss += form.loss(rows_of(w_, p), tried(p, s, type));
        return loss;
      };
    return [this, type, module = std::make_shared<ModuleLoss>(g, w_, block_, calibration_, c_, Products::exact)](
               std::span<const float> s) { return module->of([&](Param p) { return tried(p, s, type); }); };
  }

  /// The weights as they are folded so far, whose columns were multiplied and then rows divided, each product rounded
  /// to the type.
  Rows folded(Param p, Arithmetic type) const {
    const Tensor& stored = w_.tensor(p);
    const auto it = w_.factors.find(p);
    const Factors factors = it == w_.factors.end() ? Factors() : it->second;
    const int64_t cols = stored.shape()[1];
    return {stored.shape()[0], cols, [=](int64_t first, int64_t count, float* to) {
              stored.rows(first, first + count).widen(to);
              for (int64_t i = 0; i < count * cols; ++i) {
                double x = double(rounded_to(double(to[i]), type));
                if (!factors.columns.empty())
                  x = double(rounded_to(x * double(factors.columns[size_t(i % cols)]), type));
                if (!factors.rows.empty())
                  x = double(rounded_to(x / double(factors.rows[size_t(first + i / cols)]), type));
                to[i] = float(x);
              }
            }};
  }

  /// The bounds have the type of the weights, too.
  static std::vector<float> clamped(std::span<const float> w, Range r, Arithmetic type) {
    const float low = rounded_to(double(r.low), type), high = rounded_to(double(r.high), type);
    std::vector<float> out;
    for (float v : w) out.push_back(std::clamp(v, low, high));
    return out;
  }

  void round(Param p, const ScaleGroup& g) {
    const Timed timed(c_.costs.clip);
    if (c_.progress) c_.progress();
    const Rows w = folded(p, searched_in(p));
    const QuantSpec spec = c_.spec.of_width(w.cols);
    const std::vector<float> s = solution_.scales(g, w.cols);
    LayerResult layer{.param = p, .rounding_error = rounding_.at(p), .ranges = {}};
    if (v_.clips && p.role != Role::q && p.role != Role::k) layer.ranges = clip(p, w, g, spec, s);
    if (!layer.ranges.empty()) layer.clipped = share_cut(w, layer.ranges);
    QMatrix& q = solution_.matrices[p] = encoded(w, spec, layer.ranges, searched_in(p));
    layer.error = relative_loss(c_.host, rows_of(w_, p), rows_of(q), gram(g), s);
    solution_.layers.push_back(std::move(layer));
  }

  /// The published grid, 1.00 to 0.55, under all tokens: docs/numerics.md.
  std::vector<Range> clip(Param p, const Rows& w, const ScaleGroup& g, const QuantSpec& spec,
                          std::span<const float> s) const {
    const Arithmetic type = searched_in(p);
    const auto one = [&](std::span<const float> group, Range r, float* out) {
      std::ranges::copy(rounded(v_, clamped(group, r, type), spec, type).dequantized, out);
    };
    return best_ranges(c_.host, w, gram(g), spec.group_size, one, s, {.both = 10, .each = 0, .patience = 10});
  }

  /// In the arithmetic of the type of the scales: AutoAWQ casts to f16 for that, weights that are clipped already.
  QMatrix encoded(const Rows& w, const QuantSpec& spec, std::span<const Range> ranges, Arithmetic clipped_in) const {
    QMatrix q = QMatrix::empty({w.rows, w.cols}, spec);
    const auto g = size_t(spec.group_size);
    const Arithmetic type = arithmetic_of(spec.scale_dtype);
    c_.host.pool.each(w.rows, [&](int64_t r) {
      std::vector<float> row(size_t(w.cols));
      w.read(r, 1, row.data());
      for (size_t begin = 0; begin < row.size(); begin += g) {
        const size_t at = (size_t(r) * row.size() + begin) / g;
        const auto group = std::span<const float>(row).subspan(begin, g);
        const Range range = ranges.empty() ? range_of(group) : ranges[at];
        std::vector<float> cut = clamped(group, range, clipped_in);
        for (float& x : cut) x = rounded_to(double(x), type);
        const PublishedGroup found = rounded(v_, cut, spec, type);
        q.scales.as<float>()[at] = found.scale;
        q.zeros.as<uint8_t>()[at] = uint8_t(found.zero);
        std::ranges::copy(found.codes, q.codes.as<uint8_t>().begin() + ptrdiff_t(at * g));
      }
    });
    return q;
  }

  const Variant& v_;
  BlockWeights& w_;
  const Block& block_;
  const BlockCalibration& calibration_;
  const SolveContext& c_;
  std::map<Param, double> rounding_;
  Solution solution_;
};

class Published final : public Method {
 public:
  explicit Published(const Variant& v) : v_(v) {}
  bool needs_calibration() const override { return true; }
  bool folds() const override { return true; }
  Solution solve(BlockWeights& w, const Block& block, const BlockCalibration& calibration,
                 const SolveContext& context) const override {
    return Search(v_, w, block, calibration, context).run();
  }

 private:
  const Variant& v_;
};

}  // namespace

std::unique_ptr<Method> make_awq_variant(std::string_view name) {
  if (name == "ours") return make_awq(std::nullopt);
  std::string known = "ours";
  for (const Variant& v : variants()) {
    if (v.name == name) return std::make_unique<Published>(v);
    known += ", " + std::string(v.name);
  }
  fail("quantize", "--variant {}: there is no such AWQ; there are {}", name, known);
}

}  // namespace awq
