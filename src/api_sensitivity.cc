#include "api_sensitivity.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "api_evaluate.h"
#include "api_group_size.h"
#include "api_job.h"
#include "formats/context.h"
#include "formats/params.h"
#include "io/file.h"

namespace awq {
namespace {

Model load(Device& device, const Checkpoint& source, const OnProgress& progress) {
  return load_model(*device.backend, source, [&](int done, int total) {
    if (progress && !progress({"load", done, total})) throw Cancelled();
  });
}

/// `windows` beginnings of sequences, evenly spread over the set.
std::vector<int32_t> windows_of(const CalibrationSet& set, int windows, int window) {
  std::vector<int32_t> tokens;
  const size_t n = set.sequences.size(), keep = std::min(n, size_t(windows));
  for (size_t i = 0; i < keep; ++i) {
    const auto& s = set.sequences[i * n / keep];
    tokens.insert(tokens.end(), s.begin(), s.begin() + std::min(ptrdiff_t(s.size()), ptrdiff_t(window)));
  }
  return tokens;
}

/// What is measured with.
struct Measurement {
  Device& device;
  const Checkpoint& source;
  const Method& method;
  QuantSpec spec;
  const CalibrationSet& calibration;
  std::span<const int32_t> windows;
  int window;
  const OnProgress& progress;

  std::vector<MatrixSensitivity> run() const {
    const Model model = load(device, source, progress);
    return sensitivities({source,
                          model,
                          method,
                          spec,
                          calibration.sequences,
                          {.counted = calibration.counted},
                          windows,
                          window,
                          device,
                          [this](int block, int blocks) {
                            if (progress && !progress({"sensitivity", block, blocks})) throw Cancelled();
                          }});
  }
};

}  // namespace

double KeepUnit::total() const { return std::accumulate(kl.begin(), kl.end(), 0.0); }

std::vector<KeepUnit> keep_units(const ModelSpec& spec, std::span<const MatrixSensitivity> measured) {
  std::map<std::pair<int, Param>, double> kl;
  for (const MatrixSensitivity& m : measured) kl[{m.block, m.param}] = mean_of(m.kl).value;
  std::vector<KeepUnit> units;
  for (int b = 0; b < int(spec.blocks.size()); ++b)
    for (const ScaleGroup& g : scale_groups(spec.blocks[size_t(b)])) {
      KeepUnit u;
      for (Param p : g.consumers) {
        u.layers.push_back({b, p});
        u.kl.push_back(kl.at({b, p}));
        u.weights += double(shape_of(spec, b, p).elements());
      }
      units.push_back(std::move(u));
    }
  return units;
}

std::vector<KeepUnit> most_sensitive(std::vector<KeepUnit> units, int count) {
  const auto largest = [](const KeepUnit& u) { return *std::ranges::max_element(u.kl); };
  std::ranges::stable_sort(units, std::greater(), largest);
  size_t keep = 0;
  for (int layers = 0; keep < units.size() && layers < count; ++keep) layers += int(units[keep].layers.size());
  units.resize(keep);
  return units;
}

std::vector<KeepUnit> within_budget(std::vector<KeepUnit> units, double budget, double quantized_bits) {
  double weights = 0;
  for (const KeepUnit& u : units) weights += u.weights;
  if (!(budget >= quantized_bits))
    fail("quantize",
         "--budget {}: expected at least {:.4g} bits per weight, which is what all layers in 4 bits take with their "
         "scales and zero points",
         budget, quantized_bits);
  double room = (budget - quantized_bits) * weights;
  std::ranges::stable_sort(units, std::greater(), [](const KeepUnit& u) { return u.total() / u.weights; });
  std::erase_if(units, [&](const KeepUnit& u) {
    const double cost = (16 - quantized_bits) * u.weights;
    if (cost > room || u.total() <= 0) return true;
    room -= cost;
    return false;
  });
  return units;
}

nlohmann::json to_json(const ModelSpec& spec, std::span<const KeepUnit> units) {
  nlohmann::json all = nlohmann::json::array();
  for (const KeepUnit& u : units) {
    nlohmann::json layers;
    for (size_t i = 0; i < u.layers.size(); ++i)
      layers[base_name(spec, u.layers[i].first, u.layers[i].second)] = u.kl[i];
    all.push_back(std::move(layers));
  }
  return all;
}

std::vector<KeepUnit> keep_units(const ModelSpec& spec, const nlohmann::json& j) {
  std::vector<MatrixSensitivity> none;
  for (int b = 0; b < int(spec.blocks.size()); ++b)
    for (const ScaleGroup& g : scale_groups(spec.blocks[size_t(b)]))
      for (Param p : g.consumers) none.push_back({b, p, {0}});
  std::vector<KeepUnit> units = keep_units(spec, none), chosen;
  for (const auto& layers : j)
    for (KeepUnit& u : units) {
      const auto name = [&](size_t i) { return base_name(spec, u.layers[i].first, u.layers[i].second); };
      if (!layers.contains(name(0))) continue;
      for (size_t i = 0; i < u.layers.size(); ++i) u.kl[i] = layers.at(name(i));
      chosen.push_back(u);
    }
  return chosen;
}

std::vector<KeepUnit> choose_kept(Device& device, const Checkpoint& source, const Method& method, const QuantSpec& spec,
                                  double bits, const CalibrationSet& calibration, const QuantizeOptions& o,
                                  const OnProgress& progress) {
  const SensitivityOptions standard;
  const int window = std::min(standard.window, calibration.report.sequence_tokens);
  const std::vector<int32_t> windows = windows_of(calibration, standard.windows, window);
  const std::vector<MatrixSensitivity> measured =
      Measurement{device, source, method, spec, calibration, windows, window, progress}.run();
  std::vector<KeepUnit> units = keep_units(source.spec(), measured);
  return o.keep ? most_sensitive(std::move(units), o.keep) : within_budget(std::move(units), o.budget, bits);
}

SensitivityReport sensitivity(const std::filesystem::path& path, const SensitivityOptions& options,
                              const OnProgress& progress) {
  const auto start = std::chrono::steady_clock::now();
  QuantizeOptions o = with_method(options.quantize);
  const std::unique_ptr<Method> method = make_method(o.method, o.variant);
  const std::unique_ptr<Checkpoint> source = Checkpoint::open(path);
  require_cpu(o.device, "sensitivity");
  Device device(o.device);
  complete_calibration(o, *source, "sensitivity");
  if (options.window < 2 || options.windows < 1)
    fail("sensitivity", "{} windows of {} tokens: expected at least one of two", options.windows, options.window);
  require_context(*source, "sensitivity", fmt::format("--window {}", options.window), options.window);
  const QuantSpec spec{.bits = 4, .group_size = choose_group(source->spec(), o.group_size, "sensitivity").size};
  const bool own = options.text.empty();
  CalibrationSet calibration;
  if (method->needs_calibration() || own) calibration = calibration_set(device, *source, o, progress);
  SensitivityReport r{.layers = {}, .calibration = calibration.report, .text = {}, .warnings = calibration.warnings};
  r.window = own ? std::min(options.window, calibration.report.sequence_tokens) : options.window;
  const std::vector<int32_t> windows = own ? windows_of(calibration, options.windows, r.window)
                                           : windows_of(options.text, *source, options.windows, r.window);
  r.text = own ? "calibration" : options.text.filename().string();
  r.windows = int(windows.size() / size_t(r.window));
  r.group_size = spec.group_size;
  for (const MatrixSensitivity& m :
       Measurement{device, *source, *method, spec, calibration, windows, r.window, progress}.run()) {
    const Estimate kl = mean_of(m.kl);
    const Shape shape = shape_of(source->spec(), m.block, m.param);
    r.layers.push_back({base_name(source->spec(), m.block, m.param), kl.value, kl.standard_error,
                        uint64_t(double(shape.elements()) * (16 - bits_per_weight(spec, shape[1])) / 8)});
  }
  r.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return r;
}

}  // namespace awq
