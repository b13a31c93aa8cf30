#pragma once
#include <functional>

#include "quantizer/method.h"

namespace awq {

/// A float block, and what the calibration tokens looked like in it.
struct FloatBlock {
  const BlockWeights& w;
  const Block& block;  // `w` on the device, in f32
  const BlockCalibration& calibration;
  Backend& dev;
  const Host& host;
  const SiteStatistics& site(const ScaleGroup& g) const { return calibration.sites.at(g.consumers.front()); }
};

/// A way to change a block's matrices, or what they read: what a study measures. Nothing is written anywhere, so
/// whatever can be computed in floats can be measured, at any number of bits. Called for one block at a time.
class Change {
 public:
  virtual ~Change() = default;
  virtual Block changed(const FloatBlock& b) const = 0;
  virtual bool weighs_tokens() const { return false; }  // Method::weighs_tokens
};

/// What a quantization method makes of the block.
std::unique_ptr<Change> by_method(std::unique_ptr<Method> method, const QuantSpec& spec);
/// Each matrix by itself: `weights` of layer p, which is in group g.
using MatrixChange = std::function<Rows(const FloatBlock& b, const ScaleGroup& g, Param p)>;
std::unique_ptr<Change> by_matrix(MatrixChange weights);
/// All layers of each group together: what they become.
using GroupChange =
    std::function<std::map<Param, std::shared_ptr<const Linear>>(const FloatBlock& b, const ScaleGroup& g)>;
std::unique_ptr<Change> by_group(GroupChange linears);

/// `w` on the device with the layer's bias.
std::unique_ptr<Linear> linear_of(const FloatBlock& b, Param p, const Rows& w);

/// Of a group by `candidate`, as awq computes them; ones where nothing could absorb them.
std::vector<float> candidate_scales(const FloatBlock& b, const ScaleGroup& g, Candidate candidate, int group_size);

// ------------------------------------------------------------------------------------------------------------------
// Ablations of the AWQ paper (Lin et al., arXiv 2306.00978), and rivals

enum class Salience : uint8_t { random, weight_norm, activation };
/// The `share` of a layer's input channels that matter most, at least one.
std::vector<int64_t> salient_channels(const FloatBlock& b, const ScaleGroup& g, Param p, Salience by, double share);
/// Rounded to nearest, but salient channels stay float: table 1 of the paper.
std::unique_ptr<Change> keeping_salient(const QuantSpec& spec, Salience by, double share);
/// Rounded to nearest with the salient channels, by activation, multiplied by `factor` before and divided after:
/// table 2.
std::unique_ptr<Change> scaling_salient(const QuantSpec& spec, double share, float factor);
/// One candidate for all groups.
std::unique_ptr<Change> scaling_by(const QuantSpec& spec, Candidate candidate);
/// Ranges searched with `steps`, on the weights as scaled by `candidate`.
std::unique_ptr<Change> clipping(const QuantSpec& spec, Candidate candidate, RangeSteps steps);

/// NormalFloat of 4 bits (Dettmers et al., "QLoRA", arXiv 2305.14314, appendix E) in groups of `group_size`, each
/// scaled by its largest weight in f32.
std::unique_ptr<Change> nf4(int group_size);
/// SmoothQuant (Xiao et al., arXiv 2211.10438), alpha 0.5, W8A8: what norms feed is smoothed by max|x|^0.5 /
/// max|w|^0.5; weights are rounded by rows, inputs by tokens, both symmetric.
std::unique_ptr<Change> smoothquant();
/// W4A4 after a rotation of each layer's input by a Hadamard matrix (Ashkboos et al., "QuaRot", arXiv 2404.00456):
/// weights rounded by rows with the clipping of least squared error, inputs by tokens at 0.9 of their largest, both
/// symmetric. Keys and values stay float. Without `rotated`: the same, not rotated.
std::unique_ptr<Change> w4a4(bool rotated);

}  // namespace awq
