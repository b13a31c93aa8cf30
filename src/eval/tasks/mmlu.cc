// MMLU (Hendrycks et al., arXiv 2009.03300): tables SUBJECT_test.csv without a head: question, four choices, letter.
#include <algorithm>

#include "eval/task.h"
#include "text/python_text.h"

namespace awq {
namespace {

TaskItem mmlu_item(const Record& r) {
  std::string prompt(python::strip(r.cell(0), {}, true, true));
  for (size_t i = 0; i < 4; ++i) prompt += std::string("\n") + "ABCD"[i] + ". " + r.cell(1 + i);
  const std::string letter = r.cell(5);
  const size_t gold = std::string_view("ABCD").find(letter);
  if (letter.size() != 1 || gold == std::string::npos) r.bad("column 6", "one of A, B, C, D", "\"" + letter + "\"");
  return {.contexts = {prompt + "\nAnswer:"}, .choices = {"A", "B", "C", "D"}, .gold = gold};
}

/// "high_school_physics_test.csv" is about high school physics.
std::string mmlu_preamble(const std::filesystem::path& data) {
  std::string subject = data.stem().string();
  for (std::string_view part : {"_test", "_val", "_dev"})
    if (subject.ends_with(part)) subject.resize(subject.size() - part.size());
  std::ranges::replace(subject, '_', ' ');
  return "The following are multiple choice questions (with answers) about " + subject + ".\n\n";
}

}  // namespace

constinit const Task kMmlu = {.name = "mmlu",
                              .summary = "knowledge of 57 subjects, a table each",
                              .read = mmlu_item,
                              .first_shots = true,
                              .preamble = mmlu_preamble,
                              .part = "_test.csv",
                              .part_examples = "_dev.csv"};

}  // namespace awq
