#pragma once
#include <functional>
#include <span>
#include <vector>

#include "quantizer/form.h"

namespace awq {

/// Importance of input channels by the weights: mean over all rows of |w| / (largest |w| of its group + 1e-6)
/// (llm-awq calls the activations' counterpart x_max). Matrices [*, K] that share the input.
std::vector<float> weight_mean(const Host& host, std::span<const Rows> weights, int group_size);

/// One point of AWQ's grid: s = m^ratio, or m^ratio / (w^(1 - ratio) + 1e-4) with the weight term; clamped to >= 1e-4
/// and divided by sqrt(max * min). `identity` is no scaling at all.
struct Candidate {
  float ratio = 0;
  bool weight_term = false;
  bool identity() const { return ratio == 0 && !weight_term; }
};
/// Identity first, then ratios in ascending order, each without and with the weight term.
std::vector<Candidate> candidates(int steps);
std::vector<float> scales_of(Candidate c, std::span<const float> mean_abs, std::span<const float> weight_mean);
/// Each kv head's channels averaged over the query heads that share it, and repeated for all of them: the only scales
/// that v can absorb.
std::vector<float> tied(std::span<const float> channels, int tied_heads, int head_dim);

/// The loss of all of `weights`, which share the form's input, as each candidate leaves them.
std::vector<double> gram_losses(const QuadraticForm& form, std::span<const Rows> weights,
                                std::span<const std::vector<float>> scales, const QuantSpec& spec);
/// The loss of `rounded` relative to the energy of w's own output; 0 where that has none. `divisors` as in the form.
double relative_loss(const Host& host, const Rows& w, const Rows& rounded, const Gram& gram,
                     std::span<const float> divisors = {});
/// Relative squared error of the weights themselves.
double weight_error(const Host& host, const Rows& w, const QMatrix& rounded);
/// What to try for a group's range: `both` bounds of |w|, 1.00, 0.95 ... of the largest; from the best of these, each
/// end by itself at 0.95 ... 0.95 - 0.05 * `each` of where the weights end. A group goes no further in a direction in
/// which `patience` steps in a row were no better.
struct RangeSteps {
  int both = 11, each = 8, patience = 2;
};
/// The range of each row and group, [rows * groups] in row order, with the least e C_gg e^T of those tried, under the
/// group's diagonal block of C, over all tokens; `divisors` as above. The first of equals, so a group whose error
/// cannot fall is not cut. `tried`: += ranges of all groups whose error was computed.
std::vector<Range> best_ranges(const Host& host, const Rows& w, const Gram& gram, const QuantSpec& spec,
                               std::span<const float> divisors = {}, RangeSteps steps = {}, int64_t* tried = nullptr);
/// Share of groups whose range is not that of their weights.
double share_cut(const Rows& w, std::span<const Range> ranges);
/// out[i] = a weight of a group as it is rounded with that range.
using RoundGroup = std::function<void(std::span<const float> w, Range range, float* out)>;
std::vector<Range> best_ranges(const Host& host, const Rows& w, const Gram& gram, int group_size,
                               const RoundGroup& round, std::span<const float> divisors, RangeSteps steps,
                               int64_t* tried = nullptr);

}  // namespace awq
