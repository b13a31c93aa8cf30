// awq::compare_models: versions of a model side by side, with what is known of their differences.
#include <unistd.h>

#include "api_evaluate.h"
#include "eval/paired.h"
#include "io/file.h"
#include "report/comparison.h"

namespace awq {
namespace {

namespace fs = std::filesystem;
constexpr const char* kRounding = "rounding";

/// Removes a job's output when it goes, and what an interrupted job leaves beside it.
struct TemporaryOutput {
  explicit TemporaryOutput(fs::path p) : path(std::move(p)) {}
  ~TemporaryOutput() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
    fs::remove_all(path.string() + ".awq-job", ignored);
  }
  TemporaryOutput(const TemporaryOutput&) = delete;
  TemporaryOutput& operator=(const TemporaryOutput&) = delete;
  const fs::path path;
};

/// The original rounded to nearest, for as long as this lives.
class Rounding {
 public:
  Rounding(const fs::path& original, const ComparisonOptions& o, const OnProgress& progress)
      : output_(o.scratch / fmt::format(".awq-rounding-{}", getpid())) {
    quantize(original, path(), {.method = "rtn", .answers = 0, .device = {.threads = o.evaluate.device.threads}},
             progress);
  }
  const fs::path& path() const { return output_.path; }

 private:
  TemporaryOutput output_;  // goes too where quantize() throws
};

/// Values of a model, window by window or item by item.
struct Series {
  std::string metric;
  std::vector<double> values;
  bool of_original = true;  // the original has it too
};

class Comparison {
 public:
  Comparison(const fs::path& original, std::span<const fs::path> models, const ComparisonOptions& o,
             const OnProgress& progress)
      : o_(o), progress_(progress), original_(original), models_(models.begin(), models.end()) {
    if (o.text.empty() && o.tasks.tasks.empty()) fail("compare", "neither a text nor a task was given");
    if (o.rounding) models_.insert(models_.begin(), rounding_.emplace(original, o, progress).path());
    if (models_.empty()) fail("compare", "no version of the model was given");
  }

  ComparisonReport run() {
    for (size_t m = 0; m <= models_.size(); ++m) describe(m);
    if (!o_.text.empty()) texts();
    if (!o_.tasks.tasks.empty())
      for (size_t m = 0; m <= models_.size(); ++m) tasks(m);
    differences();
    return std::move(r_);
  }

 private:
  const fs::path& path(size_t m) const { return m ? models_[m - 1] : original_; }
  std::string name(size_t m) const { return rounding_ && m == 1 ? kRounding : path(m).string(); }

  void describe(size_t m) {
    const Bits bits = bits_of(*Checkpoint::open(path(m)));
    r_.models.push_back({.name = name(m), .bytes = bits.bytes, .bits_per_weight = bits.per_weight()});
  }

  void texts() {
    EvaluateOptions e = o_.evaluate;
    if (o_.text.extension() == ".jsonl") e.json_lines = o_.text.string();
    const auto reports = compare(original_, models_, read_text(o_.text), e, progress_);
    for (size_t m = 0; m < reports.size(); ++m) {
      r_.models[m].text = reports[m];
      r_.models[m].text->model = name(m);
    }
  }

  // One model after the other: each has all of the memory, and its samples are in one file with those of the others.
  void tasks(size_t m) {
    TaskOptions t = o_.tasks;
    t.device = o_.evaluate.device;
    t.resume = t.resume || (m && !t.samples.empty());
    r_.models[m].tasks = evaluate_tasks(path(m), t, progress_);
    for (TaskReport& r : r_.models[m].tasks) r.model = name(m);
  }

  static std::vector<Series> series(const ComparedModel& m) {
    std::vector<Series> all;
    if (m.text && !m.text->window_kl.empty()) all.push_back({"KL", m.text->window_kl, false});
    if (m.text) all.push_back({"negative log-likelihood", m.text->window_nll});
    for (const TaskReport& t : m.tasks)
      for (const TaskMetric& metric : t.metrics)
        all.push_back({t.task + " " + (metric.name == "perplexity" ? "log-likelihood" : metric.name), metric.items});
    return all;
  }

  void differences() {
    for (size_t m = 1; m < r_.models.size(); ++m) add_differences(m, 0);
    for (size_t m = 2; m < r_.models.size(); ++m) add_differences(m, 1);
  }

  // More KL and more negative log-likelihood are worse, more of anything else is better.
  void add_differences(size_t m, size_t other) {
    for (const Series& a : series(r_.models[m]))
      for (const Series& b : series(r_.models[other])) {
        if (a.metric != b.metric) continue;
        const Paired p = paired_bootstrap(a.values, b.values);
        const bool less_is_better = a.metric == "KL" || a.metric == "negative log-likelihood";
        r_.differences.push_back({.metric = a.metric,
                                  .model = r_.models[m].name,
                                  .other = r_.models[other].name,
                                  .pairs = int64_t(a.values.size()),
                                  .difference = p.difference,
                                  .low = p.low,
                                  .high = p.high,
                                  .p = p.p,
                                  .better = (p.difference < 0) == less_is_better && p.difference != 0});
      }
  }

  const ComparisonOptions& o_;
  const OnProgress& progress_;
  fs::path original_;
  std::optional<Rounding> rounding_;
  std::vector<fs::path> models_;
  ComparisonReport r_;
};

}  // namespace

ComparisonReport compare_models(const fs::path& original, std::span<const fs::path> models,
                                const ComparisonOptions& options, const OnProgress& progress) {
  return Comparison(original, models, options, progress).run();
}

std::string to_markdown(const ComparisonReport& r) { return comparison_markdown(r); }
std::string to_html(const ComparisonReport& r) { return comparison_page(r); }

}  // namespace awq
