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

std::vector<TaskItem> read_items(const Task& task, const std::filesystem::path& file) {
  std::vector<TaskItem> items;
  for (const Record& r : read_records(file, task.lines)) items.push_back(task.read(r));
  return items;
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
