// awq::compare_models: versions of a model side by side, with what is known of their differences.
#include <unistd.h>

#include <algorithm>

#include "api_answers.h"
#include "api_evaluate.h"
#include "api_speed.h"
#include "base/memory.h"
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

/// Values of a model, window by window, item by item or prompt by prompt.
struct Series {
  std::string metric;
  std::vector<double> values;
  bool less_is_better = false;
};

class Comparison {
 public:
  Comparison(const fs::path& original, std::span<const fs::path> models, const ComparisonOptions& o,
             const OnProgress& progress)
      : o_(o), progress_(progress), original_(original), models_(models.begin(), models.end()) {
    if (o.text.empty() && o.tasks.tasks.empty() && !o.answers.wanted() && !o.speed)
      fail("compare", "nothing to compare: no text, task, answers or speed was asked for");
    if (o.answers.wanted()) answers_.emplace(o.answers);
    if (o.rounding) models_.insert(models_.begin(), rounding_.emplace(original, o, progress).path());
    if (models_.empty()) fail("compare", "no version of the model was given");
  }

  ComparisonReport run() {
    for (size_t m = 0; m <= models_.size(); ++m) describe(m);
    if (answers_ || o_.speed)
      for (size_t m = 0; m <= models_.size(); ++m) alone(m);
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
    const auto checkpoint = Checkpoint::open(path(m));
    const Bits bits = bits_of(*checkpoint);
    const int vocab = checkpoint->spec().vocab;
    if (m == 0) vocab_ = vocab;
    if (answers_ && vocab != vocab_)
      fail("compare", "{} has a vocabulary of {}, the original one of {}; these are not versions of one model",
           path(m).string(), vocab, vocab_);
    r_.models.push_back({.name = name(m), .bytes = bits.bytes, .bits_per_weight = bits.per_weight()});
  }

  // Before there is a text, for which all models are loaded: the peak is that of one.
  void alone(size_t m) {
    return_free_memory();
    const bool counted = reset_peak_memory();
    Device device(o_.evaluate.device);
    const auto checkpoint = Checkpoint::open(path(m));
    const Model model = load_model(*device.backend, *checkpoint, [&](int done, int total) {
      if (progress_ && !progress_({"load", done, total})) throw Cancelled();
    });
    ComparedModel& to = r_.models[m];
    if (o_.speed) {
      to.speed = measure_speed(device, *checkpoint, model, o_.evaluate.device.kv, progress_);
      if (counted) to.speed->peak_memory = peak_resident_memory();
    }
    if (answers_) to.answers = answers_->run(device, *checkpoint, model, o_.evaluate.device.kv, progress_);
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

  /// With its file where the task was run on several.
  static std::string label(const TaskReport& t, const ComparedModel& m) {
    const bool several = std::ranges::count(m.tasks, t.task, &TaskReport::task) > 1;
    return several ? t.task + " " + fs::path(t.file).filename().string() : t.task;
  }

  static std::vector<double> each(const LongAnswers& a, double (*of)(const LongAnswer&)) {
    std::vector<double> values;
    for (const LongAnswer& answer : a.answers) values.push_back(of(answer));
    return values;
  }

  /// `version`: the model is not the original, which has nothing to agree with.
  static void add_answers(const LongAnswers& a, bool version, std::vector<Series>& all) {
    all.push_back({a.mode + " repetition", each(a, [](const LongAnswer& x) { return x.repetition; }), true});
    if (!version) return;
    all.push_back({a.mode + " same tokens", each(a, [](const LongAnswer& x) { return double(x.same); })});
    Series agreement{a.mode + " same answer", {}};
    for (const LongAnswer& x : a.answers)
      if (x.agrees) agreement.values.push_back(double(*x.agrees));
    if (!agreement.values.empty()) all.push_back(std::move(agreement));
  }

  static std::vector<Series> series(const ComparedModel& m, bool version) {
    std::vector<Series> all;
    if (m.text && !m.text->window_kl.empty()) all.push_back({"KL", m.text->window_kl, true});
    if (m.text) all.push_back({"negative log-likelihood", m.text->window_nll, true});
    for (const TaskReport& t : m.tasks)
      for (const TaskMetric& metric : t.metrics)
        all.push_back(
            {label(t, m) + " " + (metric.name == "perplexity" ? "log-likelihood" : metric.name), metric.items});
    for (const LongAnswers& a : m.answers) add_answers(a, version, all);
    return all;
  }

  void differences() {
    for (size_t m = 1; m < r_.models.size(); ++m) add_differences(m, 0);
    for (size_t m = 2; m < r_.models.size(); ++m) add_differences(m, 1);
  }

  void add_differences(size_t m, size_t other) {
    for (const Series& a : series(r_.models[m], true))
      for (const Series& b : series(r_.models[other], other > 0)) {
        if (a.metric != b.metric) continue;
        const Paired p = paired_bootstrap(a.values, b.values);
        r_.differences.push_back({.metric = a.metric,
                                  .model = r_.models[m].name,
                                  .other = r_.models[other].name,
                                  .pairs = int64_t(a.values.size()),
                                  .difference = p.difference,
                                  .low = p.low,
                                  .high = p.high,
                                  .p = p.p,
                                  .better = (p.difference < 0) == a.less_is_better && p.difference != 0});
      }
  }

  const ComparisonOptions& o_;
  const OnProgress& progress_;
  fs::path original_;
  std::optional<Rounding> rounding_;
  std::optional<AnswerJob> answers_;
  int vocab_ = 0;  // the original's
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
