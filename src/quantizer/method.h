#pragma once
#include <array>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "quantizer/calibration.h"
#include "quantizer/search.h"

namespace awq {

/// What a method decided for one linear layer. Errors are relative: sum |y' - y|^2 / sum |y|^2 of the layer's output
/// over all calibration tokens, or of its weights where the method looks at no data.
struct LayerResult {
  Param param;
  double error = 0, rounding_error = 0;
  bool kept = false;                // stored in 16 bits after all
  double clipped = 0;               // share of groups whose range was cut
  std::vector<Range> ranges;        // [rows * groups] of the scaled weights, in row order; empty where none was cut
  std::vector<int64_t> codes{};     // how many weights have each of the 2^bits; set when the block is written
  int64_t tokens = 0;               // calibration tokens that the layer was judged on; set after solve()
  std::optional<int64_t> routed{};  // that the router sent to its expert, where it is one's
  int64_t forced = 0;               // of `tokens`, that it would have sent elsewhere
};

/// An input channel of a group as the calibration tokens have it.
struct ChannelResult {
  int64_t channel = 0;
  float mean_abs = 0, scale = 1;
};

/// What a method decided for one scale group, by the loss that the group is judged on.
struct GroupResult {
  ScaleGroup group;
  Candidate chosen;
  double loss = 0, identity_loss = 0;
  float smallest = 1, largest = 1;  // scale
  std::vector<float> scales;        // one a channel of the consumers' input
  // Where there was calibration, of the input before it is scaled; set after solve().
  std::vector<ChannelResult> salient{};  // with the largest activations, largest first
  int64_t dead = 0;                      // channels that were zero at every token
  float mean_abs = 0;                    // over all channels
};

struct Solution {
  std::map<Param, QMatrix> matrices;
  std::vector<GroupResult> groups;
  std::vector<LayerResult> layers;
  /// Of the `channels` of a group's input; ones where nothing was scaled.
  std::vector<float> scales(const ScaleGroup& g, int64_t channels) const;
};

/// What a method may use, and where it says what it took.
struct SolveContext {
  const QuantSpec& spec;
  Backend& dev;
  const Host& host;
  BlockCosts& costs;
  std::function<void()> progress;  // called now and then; may throw to cancel
};

/// Turns one block's float weights into quantized ones. May rescale `w` only through fold(), so that the float block
/// still computes the same function. Called for one block at a time.
class Method {
 public:
  virtual ~Method() = default;
  virtual bool needs_calibration() const = 0;
  virtual bool folds() const = 0;  // calls fold(), so that the float block is to be checked
  /// Tokens count in the Gram matrices by what they do to the model's output (TokenWeights).
  virtual bool weighs_tokens() const { return false; }
  /// Bytes that it needs for layers of that width beyond what every method does.
  virtual int64_t extra_bytes(int64_t /*cols*/) const { return 0; }
  /// `block` is `w` on the device, before any change; empty where no calibration is needed.
  virtual Solution solve(BlockWeights& w, const Block& block, const BlockCalibration& calibration,
                         const SolveContext& context) const = 0;
};

struct MethodEntry {
  std::string_view name;  // as accepted by --method
  std::string_view summary;
  std::unique_ptr<Method> (*make)();
};
std::span<const MethodEntry> methods();
const MethodEntry& find_method(std::string_view name);  // throws Error, listing what exists
/// `variant`: of "awq", see variants.h; "ours" for every other. Throws Error.
std::unique_ptr<Method> make_method(std::string_view name, std::string_view variant);

}  // namespace awq
