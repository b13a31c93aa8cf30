#pragma once
// Which format is written: what --format and --target of `awq convert` and `awq quantize` mean.
#include <functional>
#include <string>
#include <vector>

#include "formats/packed_sink.h"

namespace awq {

/// What a program multiplies with on one device: a part of a matrix, of q, k and v as one, or of gate and up as one.
struct Share {
  std::string name;  // of the first
  int64_t rows = 0, cols = 0;
};

/// A program that reads the result, as far as awq's own runs of it, or what it is documented to load, show:
/// docs/formats.md has versions and sources.
struct Target {
  std::string_view name, format;
  std::vector<int> groups;  // -1: whole rows
  std::vector<DType> scales = {DType::f16, DType::bf16, DType::f32};
  bool fused_inputs = true;                    // QMatrix::inputs of matrices that it makes one
  bool powers_of_two = false;                  // it is split over such numbers of devices alone
  bool (*runs)(const Share& share) = nullptr;  // whether its kernels do; null: whatever the shape
  std::string_view shapes = "";                // what `runs` asks for, in words
};

struct FormatChoice {
  const Format* format;
  const Target* target;  // null where none was named
  /// Throws Error unless the target runs groups of so many columns; `of` says whose they are.
  void check_group(std::string_view operation, const std::string& of, int group_size) const;
  /// Throws Error unless whole groups, heads and words are left on each device, in shapes that the target runs. `spec`:
  /// of a matrix of the blocks, absent where it is in floats.
  void check_devices(std::string_view operation, const ModelSpec& model, int devices,
                     const std::function<std::optional<QuantSpec>(int block, Param p)>& spec) const;
  /// Throws Error unless the target reads what a quantized matrix has beside codes.
  void check_matrix(const std::string& name, Role role, const Pieces& w) const;
};

/// One of the two names; `otherwise` where both are empty. Throws Error, listing what there is.
FormatChoice choose_format(std::string_view operation, const std::string& format, const std::string& target,
                           std::string_view otherwise = "");

/// Of --scales: "f16" or "bf16"; throws Error for others.
DType scale_type(std::string_view operation, const std::string& name);

/// As the format needs it: symmetric where its zero points are all the middle. Throws Error, naming what would do,
/// unless the format can hold whatever is quantized to it.
QuantSpec spec_to_quantize(const Format& format, QuantSpec spec);

/// How the format then stores that: in groups of its own, with offsets in place of zero points.
QuantSpec stored_spec(const Format& format, QuantSpec spec);

/// Throws Error unless the format packs the rows and columns of every matrix of the blocks in whole units.
void require_units(const Format& format, const ModelSpec& spec);

/// A sink of the format for the 4-bit matrices of a quantizer, whose zero * scale is rounded where the format has the
/// product.
std::unique_ptr<CheckpointSink> fitting_sink(const Format& format, const OutputPlace& place,
                                             const nlohmann::json& config, const ModelSpec& spec,
                                             const QuantSpec& quant);

}  // namespace awq
