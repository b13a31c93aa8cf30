#pragma once
// How much each layer costs, and which to keep in 16 bits for it.
#include <set>

#include "api_calibration.h"
#include "eval/sensitivity.h"

namespace awq {

/// Layers that programs with fused matrices load as one, so that they are kept together or not at all.
struct KeepUnit {
  std::vector<std::pair<int, Param>> layers;
  std::vector<double> kl;  // of each layer alone
  double weights = 0;
  double total() const;
};
/// In the model's order; the layers of a unit share their input.
std::vector<KeepUnit> keep_units(const ModelSpec& spec, std::span<const MatrixSensitivity> measured);

/// Units with the `count` largest KLs of a layer, so at least as many layers.
std::vector<KeepUnit> most_sensitive(std::vector<KeepUnit> units, int count);
/// The units of the largest KL per bit that together leave the mean at `budget` bits per weight or below; each weight
/// of the others takes `quantized_bits`. Throws Error for less than that.
std::vector<KeepUnit> within_budget(std::vector<KeepUnit> units, double budget, double quantized_bits);

/// What a job keeps of a choice, to go on with it. Throws Error if a layer is none of the model's.
nlohmann::json to_json(const ModelSpec& spec, std::span<const KeepUnit> units);
std::vector<KeepUnit> keep_units(const ModelSpec& spec, const nlohmann::json& j);

/// What options.keep or options.budget ask for, measured on some of the calibration text.
/// `bits`: a weight takes so many where it is not kept.
std::vector<KeepUnit> choose_kept(Device& device, const Checkpoint& source, const Method& method, const QuantSpec& spec,
                                  double bits, const CalibrationSet& calibration, const QuantizeOptions& options,
                                  const OnProgress& progress);

}  // namespace awq
