// awq::tasks and awq::evaluate_tasks.
#include <algorithm>
#include <chrono>
#include <map>
#include <numeric>

#include "awq/awq.h"
#include "base/sha256.h"
#include "eval/completion.h"
#include "eval/few_shot.h"
#include "eval/samples.h"
#include "eval/task_score.h"
#include "io/file.h"

namespace awq {
namespace {

constexpr size_t kBatchTokens = 1024;  // of contexts that are run together; more are no faster and take memory
constexpr size_t kBatchAnswers = 16;   // answers that are written together

namespace fs = std::filesystem;

/// A task's data, or those of a part, read and checked.
struct TaskData {
  const Task* task = nullptr;
  fs::path file, shots_from;
  std::vector<TaskItem> items{}, pool{};  // `pool` is empty where examples are of the items themselves
  int shots = 0;
  size_t count = 0;  // items that are scored
};

TaskData read_data(const Task& task, const fs::path& file, const fs::path& shots_from, const TaskOptions& o) {
  TaskData d{.task = &task, .file = file, .shots_from = shots_from};
  d.items = read_items(task, file);
  d.shots = o.shots < 0 ? task.shots : o.shots;
  if (d.shots && !shots_from.empty()) d.pool = read_items(task, shots_from);
  d.count = o.limit ? std::min(size_t(o.limit), d.items.size()) : d.items.size();
  return d;
}

/// One file, or a folder of parts.
struct Benchmark {
  fs::path file;
  bool folder = false;
  std::vector<TaskData> parts{};
  size_t items() const {
    size_t n = 0;
    for (const TaskData& d : parts) n += d.count;
    return n;
  }
};

Benchmark read_benchmark(const TaskFile& f, const TaskOptions& o) {
  const Task& task = find_task(f.task);
  Benchmark b{.file = f.file, .folder = fs::is_directory(f.file)};
  if (!b.folder) {
    b.parts.push_back(read_data(task, f.file, o.shots_from, o));
    return b;
  }
  for (const fs::path& file : part_files(task, f.file)) {
    fs::path shots = o.shots_from;
    if (!shots.empty()) shots /= part_name(task, file) + std::string(task.part_examples);
    b.parts.push_back(read_data(task, file, shots, o));
  }
  return b;
}

/// The items' whole contexts, examples included.
std::vector<TaskItem> with_examples(const TaskData& d, const TaskOptions& o) {
  const bool own = d.pool.empty();
  FewShot examples(*d.task, own ? d.items : d.pool, d.shots && own, d.shots, o.seed);
  const std::string preamble = d.task->preamble ? d.task->preamble(d.file) : "";
  std::vector<TaskItem> items(d.items.begin(), d.items.begin() + long(d.count));
  for (TaskItem& item : items) {
    const std::string before = preamble + examples.before(item);
    for (std::string& c : item.contexts) c.insert(0, before);
  }
  return items;
}

class TaskJob {
 public:
  TaskJob(const fs::path& model, const TaskOptions& o, const OnProgress& progress)
      : o_(o), progress_(progress), name_(model.string()) {
    if (o.tasks.empty()) fail("eval", "no task was named");
    if (!o.shots_from.empty() && o.tasks.size() > 1)
      fail("eval", "--shots-from {}: examples of one task, but {} were named; run them one by one",
           o.shots_from.string(), o.tasks.size());
    for (const TaskFile& f : o.tasks) benchmarks_.push_back(read_benchmark(f, o));
    if (!o.samples.empty()) samples_.emplace(o.samples, o.resume);
    kv_ = kv_type(o.device.kv, DType::f32);
    device_.emplace(o.device);
    checkpoint_ = Checkpoint::open(model);
    text_.emplace(*checkpoint_);
    model_ = load_model(*device_->backend, *checkpoint_, [&](int done, int total) { report("load", done, total); });
  }

  std::vector<TaskReport> run() {
    std::vector<TaskReport> reports;
    for (const Benchmark& b : benchmarks_) reports.push_back(run(b));
    return reports;
  }

 private:
  void report(std::string_view stage, int64_t done, int64_t total) const {
    if (progress_ && !progress_({stage, int(done), int(total)})) throw Cancelled(left());
  }
  std::string left() const {
    return o_.samples.empty() ? ""
                              : fmt::format("the scores so far are in {}; go on with --resume", o_.samples.string());
  }

  nlohmann::ordered_json description(const TaskData& d) const {
    nlohmann::ordered_json j{{"model", name_},
                             {"task", d.task->name},
                             {"file", d.file.string()},
                             {"sha256", sha256_of(read_text(d.file))},
                             {"shots", d.shots},
                             {"shots_from", d.shots ? d.shots_from.string() : ""},
                             {"seed", d.shots ? o_.seed : 0},
                             {"kv", o_.device.kv},
                             {"activations", o_.device.activations}};
    if (const fs::path labels = labels_of(*d.task, d.file); !labels.empty())
      j["labels_sha256"] = sha256_of(read_text(labels));
    return j;
  }

  TaskReport run(const Benchmark& b) {
    before_ = 0, total_ = b.items();
    if (!b.folder) return run(b.parts.front());
    TaskReport all{.model = name_, .task = std::string(b.parts.front().task->name), .file = b.file.string()};
    for (const TaskData& d : b.parts) {
      const TaskReport r = run(d);
      all.items += r.items, all.shots = r.shots, all.resumed += r.resumed, all.truncated += r.truncated;
      all.seconds += r.seconds;
      all.parts.push_back({part_name(*d.task, d.file), r.items, r.metrics});
      before_ += d.count;
    }
    all.metrics = of_parts(all.parts);
    if (const auto group = b.parts.front().task->group) all.groups = grouped(all.parts, group);
    return all;
  }

  static std::vector<TaskPart> grouped(const std::vector<TaskPart>& parts,
                                       std::string_view (*group)(std::string_view)) {
    std::map<std::string_view, std::vector<TaskPart>> members;
    for (const TaskPart& p : parts)
      if (const std::string_view name = group(p.name); !name.empty()) members[name].push_back(p);
    std::vector<TaskPart> groups;
    for (const auto& [name, of] : members) {
      TaskPart& g = groups.emplace_back(TaskPart{.name = std::string(name), .metrics = of_parts(of)});
      for (const TaskPart& p : of) g.items += p.items;
    }
    return groups;
  }

  static std::vector<TaskMetric> of_parts(const std::vector<TaskPart>& parts) {
    std::vector<TaskMetric> all = parts.front().metrics;
    for (size_t m = 0; m < all.size(); ++m) {
      std::vector<Estimate> values;
      std::vector<size_t> counts;
      all[m].items.clear();
      for (const TaskPart& p : parts) {
        const TaskMetric& of = p.metrics[m];
        values.push_back(of.value), counts.push_back(of.items.size());
        all[m].items.insert(all[m].items.end(), of.items.begin(), of.items.end());
      }
      all[m].value = pooled(values, counts);
    }
    return all;
  }

  TaskReport run(const TaskData& d) {
    const auto start = std::chrono::steady_clock::now();
    items_ = with_examples(d, o_);
    task_ = d.task;
    TaskReport r{.model = name_,
                 .task = std::string(task_->name),
                 .file = d.file.string(),
                 .items = int(d.count),
                 .shots = d.shots};
    scores_ = samples_ ? samples_->begin(description(d), metrics_of(*task_).size()) : decltype(scores_)();
    std::erase_if(scores_, [&](const auto& s) { return s.first >= d.count; });
    r.resumed = resumed_ = int(scores_.size());
    truncated_ = 0;
    if (task_->kind == TaskKind::generation)
      write_answers();
    else
      score_choices();
    r.truncated = truncated_;
    r.metrics = metrics();
    r.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return r;
  }

  std::vector<TaskMetric> metrics() const {
    std::vector<TaskMetric> all;
    for (const std::string& name : metrics_of(*task_)) {
      TaskMetric m{.name = name, .value = {}, .items = {}};
      for (const auto& [item, scores] : scores_) m.items.push_back(scores[all.size()]);
      m.value = metric_of(name, m.items);
      all.push_back(std::move(m));
    }
    return all;
  }

  /// Of the task at work, so many of the open items of the part at work done.
  void report_items(size_t done) const {
    report(task_->name, int64_t(before_ + size_t(resumed_) + done), int64_t(total_));
  }

  /// Items that have no score yet.
  std::vector<size_t> open_items() const {
    std::vector<size_t> all;
    for (size_t i = 0; i < items_.size(); ++i)
      if (!scores_.contains(i)) all.push_back(i);
    return all;
  }

  // --- choices and completions

  std::vector<ScoredTokens> encoded(const TaskItem& item) {
    std::vector<ScoredTokens> all;
    const auto longest = size_t(model_.spec.max_context);
    for (size_t i = 0; i < item.size(); ++i)
      all.push_back(
          encode_pair(text_->tokenizer(), item.context(i), std::string(task_->between) + item.choice(i), longest));
    truncated_ += std::ranges::any_of(all, [](const ScoredTokens& s) { return s.cut; });
    return all;
  }

  // The longest first, so that the time left is estimated from above and memory runs out at once or never.
  void score_choices() {
    const std::vector<size_t> open = open_items();
    std::vector<std::vector<ScoredTokens>> sequences(items_.size());
    for (size_t i : open) sequences[i] = encoded(items_[i]);
    std::vector<size_t> order = open;
    std::ranges::stable_sort(order, std::greater(), [&](size_t i) { return shared_tokens(sequences[i]); });
    const LikelihoodScorer scorer(*device_, model_, kv_);
    for (size_t done = 0; done < order.size();) {
      report_items(done);
      std::vector<std::vector<ScoredTokens>> batch;
      for (size_t tokens = 0; done + batch.size() < order.size() && tokens < kBatchTokens;) {
        batch.push_back(std::move(sequences[order[done + batch.size()]]));
        tokens += batch.back().front().tokens.size();
      }
      const auto likelihoods = scorer.score(batch);
      for (size_t b = 0; b < batch.size(); ++b) keep(order[done + b], likelihoods[b]);
      done += batch.size();
      if (samples_) samples_->sync();
    }
  }

  void keep(size_t i, std::span<const Likelihood> of) {
    const TaskItem& item = items_[i];
    scores_[i] = choice_scores(*task_, item, of);
    if (!samples_) return;
    std::vector<double> log_likelihoods;
    std::vector<bool> greedy;
    for (const Likelihood& l : of) log_likelihoods.push_back(l.log_likelihood), greedy.push_back(l.greedy);
    samples_->put({{"item", i},
                   {"contexts", item.contexts},
                   {"choices", item.choices},
                   {"gold", item.gold},
                   {"log_likelihoods", log_likelihoods},
                   {"greedy", greedy},
                   {"scores", scores_[i]}});
  }

  // --- answers

  void write_answers() {
    const CompletionLimits limits{.tokens = 256, .stops = {"Question:", "</s>", "<|im_end|>"}};
    const auto longest = size_t(std::max(1, model_.spec.max_context - limits.tokens));
    const std::vector<size_t> open = open_items();
    for (size_t done = 0; done < open.size();) {
      report_items(done);
      const size_t n = std::min(kBatchAnswers, open.size() - done);
      std::vector<std::vector<int32_t>> prompts;
      for (size_t b = 0; b < n; ++b) {
        auto& p = prompts.emplace_back(encode_prompt(text_->tokenizer(), items_[open[done + b]].contexts[0]));
        if (p.size() > longest) p.erase(p.begin(), p.end() - long(longest)), ++truncated_;
      }
      const auto answers = complete(*device_, model_, *text_, prompts, limits, kv_);
      for (size_t b = 0; b < n; ++b) keep(open[done + b], answers[b]);
      done += n;
      if (samples_) samples_->sync();
    }
  }

  void keep(size_t i, const std::string& answer) {
    const TaskItem& item = items_[i];
    scores_[i] = answer_scores(item, answer);
    if (samples_)
      samples_->put({{"item", i},
                     {"contexts", item.contexts},
                     {"right", item.choice(0)},
                     {"answer", answer},
                     {"scores", scores_[i]}});
  }

  const TaskOptions& o_;
  const OnProgress& progress_;
  std::string name_;
  std::vector<Benchmark> benchmarks_;
  std::optional<SampleFile> samples_;
  DType kv_ = DType::f32;
  std::optional<Device> device_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::optional<TextSide> text_;
  Model model_;
  // Of the task at work.
  const Task* task_ = nullptr;
  std::vector<TaskItem> items_;
  std::map<size_t, std::vector<double>> scores_;
  int truncated_ = 0, resumed_ = 0;
  size_t before_ = 0, total_ = 0;  // items of parts that are done, and of all parts
};

}  // namespace

std::vector<TaskInfo> tasks() {
  std::vector<TaskInfo> all;
  for (const Task* t : all_tasks()) all.push_back({t->name, t->summary});
  return all;
}

std::vector<TaskReport> evaluate_tasks(const fs::path& model, const TaskOptions& options, const OnProgress& progress) {
  return TaskJob(model, options, progress).run();
}

}  // namespace awq
