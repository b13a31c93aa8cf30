#pragma once
#include <span>

#include "eval/record.h"

namespace awq {

enum class TaskKind : uint8_t {
  choice,      // the likeliest of several continuations
  completion,  // one continuation: is it what the model would write, and how likely
  generation,  // the model writes an answer
};

/// An item as text, without examples before it.
struct TaskItem {
  std::vector<std::string> contexts{};  // one, or as many as there are choices
  std::vector<std::string> choices{};   // what may follow, without what stands between: one, or several
  size_t gold = 0;                      // the right one; of completion and generation the only one
  std::vector<uint8_t> truths{};        // of each choice, where several are true
  size_t size() const { return std::max(contexts.size(), choices.size()); }
  const std::string& context(size_t i) const { return contexts[contexts.size() > 1 ? i : 0]; }
  const std::string& choice(size_t i) const { return choices[choices.size() > 1 ? i : 0]; }
};

/// A benchmark as lm-eval (EleutherAI's lm-evaluation-harness) defines it: prompts, what counts, examples.
struct Task {
  std::string_view name, summary;
  TaskKind kind = TaskKind::choice;
  TaskItem (*read)(const Record& r) = nullptr;
  bool normalized = false;         // acc_norm too
  bool truths = false;             // acc is the true choices' share of the probability
  std::string_view between = " ";  // context and continuation
  int lines = 0;                   // of an entry in a .txt file
  int shots = 0;                   // examples, unless the user says otherwise
  bool first_shots = false;        // the first of their file instead of random ones
  std::string (*preamble)(const std::filesystem::path& data) = nullptr;
  std::string_view part = {};           // "_test.csv": how names end of files that make the task, in one folder
  std::string_view part_examples = {};  // and of those that examples of a part are taken of
  std::string_view (*group)(std::string_view part) = nullptr;  // "STEM": what a part is summed up in; "": in nothing
  std::string_view labels = {};  // "-labels.lst": how the name ends, instead of ".jsonl", of labels apart
};

std::span<const Task* const> all_tasks();
/// Throws Error, listing the names.
const Task& find_task(std::string_view name);
/// {"acc", "acc_norm"}: what is measured, in the order of scores.
std::vector<std::string> metrics_of(const Task& task);

/// Items of a file. Throws Error, naming the line.
std::vector<TaskItem> read_items(const Task& task, const std::filesystem::path& file);
/// Where the labels of `file` are, if it has none itself and the task's authors publish them apart; else empty.
std::filesystem::path labels_of(const Task& task, const std::filesystem::path& file);
/// Files of a folder that are the task's, by name. Throws Error where there are none, or the task is one file.
std::vector<std::filesystem::path> part_files(const Task& task, const std::filesystem::path& folder);
/// "abstract_algebra" of "test/abstract_algebra_test.csv".
std::string part_name(const Task& task, const std::filesystem::path& file);

extern const Task kArcEasy, kArcChallenge, kBoolQ, kGsm8k, kHellaSwag, kLambada, kMmlu, kOpenBookQa, kPiqa,
    kTruthfulQaMc1, kTruthfulQaMc2, kWinoGrande;

/// Questions with lettered choices, as the Allen Institute publishes them: {"question": {"stem": ..., "choices":
/// [{"text": ..., "label": "A"}, ...]}, "answerKey": "A"}; on Hugging Face {`stem`: ..., "choices": {"text": [...],
/// "label": [...]}, "answerKey": ...}. The context is the question.
TaskItem lettered_item(const Record& r, std::string_view stem);

}  // namespace awq
