// awq::compare_calibrations: one model quantized with several mixes of calibration text, all against the original.
#include <unistd.h>

#include "api_calibration.h"
#include "api_evaluate.h"
#include "io/file.h"

namespace awq {
namespace {

namespace fs = std::filesystem;
constexpr int kOwnWindows = 16;

/// A folder for as long as this lives.
class Scratch {
 public:
  explicit Scratch(const fs::path& in) : path_(in / fmt::format(".awq-calib-compare-{}", getpid())) {
    std::error_code error;
    fs::create_directories(in, error);
    if (error || !fs::create_directory(path_, error))
      fail("calib compare", "{}: no folder can be made there: {}. Choose another place with --scratch", in.string(),
           error.message());
  }
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  fs::path operator/(const std::string& name) const { return path_ / name; }

 private:
  fs::path path_;
};

std::string name_of(const std::vector<CalibrationSource>& mix) {
  std::string name;
  for (const CalibrationSource& s : mix)
    name +=
        (name.empty() ? "" : ",") + s.file.filename().string() + (s.weight == 1 ? "" : fmt::format("={:g}", s.weight));
  return mix.empty() ? "self" : name;
}

void check(const CalibrationCompareOptions& o) {
  if (o.mixes.size() < 2) fail("calib compare", "{} mixes; at least two can be compared", o.mixes.size());
  for (const auto& mix : o.mixes)
    for (const CalibrationSource& s : mix)
      if (std::error_code error; !o.text.empty() && fs::equivalent(s.file, o.text, error))
        fail("calib compare", "{} is calibration text and held-out text at once; held-out text must be another",
             o.text.string());
}

std::vector<int32_t> own_text(const fs::path& model, const CalibrationCompareOptions& options,
                              const OnProgress& progress) {
  const std::unique_ptr<Checkpoint> source = Checkpoint::open(model);
  require_cpu(options.quantize.device, "calib");
  Device device(options.quantize.device);
  return held_out_text(device, *source, options.quantize, options.windows ? options.windows : kOwnWindows,
                       options.window, "calib compare", progress);
}

std::vector<EvaluateReport> evaluated(const fs::path& model, const std::vector<fs::path>& versions,
                                      const CalibrationCompareOptions& options, const OnProgress& progress) {
  EvaluateOptions e;
  e.window = options.window, e.windows = options.windows;
  e.device = options.quantize.device;
  if (options.text.empty()) return compare_tokens(model, versions, own_text(model, options, progress), e, progress);
  if (options.text.extension() == ".jsonl") e.json_lines = options.text.string();
  return compare(model, versions, read_text(options.text), e, progress);
}

Estimate difference(const EvaluateReport& a, const EvaluateReport& first) {
  std::vector<double> d;
  for (size_t i = 0; i < a.window_kl.size(); ++i) d.push_back(a.window_kl[i] - first.window_kl[i]);
  return mean_of(d);
}

}  // namespace

std::vector<CalibrationMixReport> compare_calibrations(const fs::path& model, const CalibrationCompareOptions& options,
                                                       const OnProgress& progress) {
  check(options);
  const Scratch scratch(options.scratch);
  std::vector<CalibrationMixReport> reports;
  std::vector<fs::path> versions;
  for (const auto& mix : options.mixes) {
    QuantizeOptions o = options.quantize;
    o.calibration = mix;
    if (mix.empty()) o.mask_prompts = false;
    versions.push_back(scratch / std::to_string(versions.size()));
    reports.push_back({name_of(mix), quantize(model, versions.back(), o, progress).calibration, {}, {}});
  }
  std::vector<EvaluateReport> evaluations = evaluated(model, versions, options, progress);
  for (size_t i = 0; i < reports.size(); ++i) {
    reports[i].evaluation = std::move(evaluations[i + 1]);  // the original's is the first
    reports[i].evaluation.model = reports[i].mix;
    reports[i].difference = difference(reports[i].evaluation, reports.front().evaluation);
  }
  return reports;
}

}  // namespace awq
