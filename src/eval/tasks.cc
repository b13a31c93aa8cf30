#include <algorithm>
#include <array>

#include "base/check.h"
#include "eval/task.h"

namespace awq {

std::span<const Task* const> all_tasks() {
  static constexpr std::array<const Task*, 12> kTasks = {&kHellaSwag,    &kPiqa,          &kWinoGrande,    &kArcEasy,
                                                         &kArcChallenge, &kLambada,       &kBoolQ,         &kOpenBookQa,
                                                         &kMmlu,         &kTruthfulQaMc1, &kTruthfulQaMc2, &kGsm8k};
  return kTasks;
}

const Task& find_task(std::string_view name) {
  std::string names;
  for (const Task* t : all_tasks()) {
    if (t->name == name) return *t;
    names += (names.empty() ? "" : ", ") + std::string(t->name);
  }
  fail("eval", "\"{}\" is no task; there are {}", name, names);
}

std::vector<std::string> metrics_of(const Task& task) {
  switch (task.kind) {
    case TaskKind::completion:
      return {"acc", "perplexity"};
    case TaskKind::generation:
      return {"strict", "flexible"};
    case TaskKind::choice:
      break;
  }
  return task.normalized ? std::vector<std::string>{"acc", "acc_norm"} : std::vector<std::string>{"acc"};
}

namespace {

namespace fs = std::filesystem;
constexpr size_t kLabels = 2;  // of PIQA, the only task whose labels are apart

fs::path labels_beside(const Task& task, const fs::path& file) {
  return file.parent_path() / (file.stem().string() + std::string(task.labels));
}

bool labels_apart(const Task& task, const std::vector<Record>& records) {
  return !task.labels.empty() && !records.front().has("label");
}

}  // namespace

std::vector<TaskItem> read_items(const Task& task, const fs::path& file) {
  std::vector<Record> records = read_records(file, task.lines);
  if (labels_apart(task, records)) {
    const fs::path labels = labels_beside(task, file);
    if (!fs::exists(labels)) records.front().bad("label", "this field, or labels in " + labels.string(), "neither");
    add_labels(records, labels, kLabels);
  }
  std::vector<TaskItem> items;
  for (const Record& r : records) items.push_back(task.read(r));
  return items;
}

fs::path labels_of(const Task& task, const fs::path& file) {
  return !task.labels.empty() && labels_apart(task, read_records(file)) ? labels_beside(task, file) : fs::path();
}

std::vector<fs::path> part_files(const Task& task, const fs::path& folder) {
  if (task.part.empty()) fail("eval", "{}: a folder, but {} is one file; name that", folder.string(), task.name);
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().filename().string().ends_with(task.part)) files.push_back(entry.path());
  if (files.empty())
    fail("eval", "{}: no file whose name ends in {}, as {} is published; is it another folder of the archive?",
         folder.string(), task.part, task.name);
  std::ranges::sort(files);
  return files;
}

std::string part_name(const Task& task, const fs::path& file) {
  std::string name = file.filename().string();
  if (name.ends_with(task.part)) name.resize(name.size() - task.part.size());
  return name;
}

namespace {

/// Labels and texts of the choices.
std::pair<std::vector<std::string>, std::vector<std::string>> lettered_choices(const Record& r) {
  if (r.has("choices")) return {r.at("choices").texts("label"), r.at("choices").texts("text")};
  std::pair<std::vector<std::string>, std::vector<std::string>> all;
  for (const Record& c : r.at("question").entries("choices")) {
    all.first.push_back(c.text("label"));
    all.second.push_back(c.text("text"));
  }
  return all;
}

}  // namespace

TaskItem lettered_item(const Record& r, std::string_view stem) {
  auto [labels, texts] = lettered_choices(r);
  std::string key = r.text("answerKey");
  key.erase(0, key.find_first_not_of(' '));
  const auto gold = size_t(std::ranges::find(labels, key) - labels.begin());
  if (labels.size() != texts.size() || gold == labels.size())
    r.bad("answerKey", fmt::format("one of the labels {}", fmt::join(labels, ", ")), "\"" + key + "\"");
  return {.contexts = {r.has("choices") ? r.text(stem) : r.at("question").text("stem")},
          .choices = std::move(texts),
          .gold = gold};
}

}  // namespace awq
