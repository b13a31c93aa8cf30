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

// The authors' four categories.
constexpr std::string_view kHumanities[] = {"formal_logic",
                                            "high_school_european_history",
                                            "high_school_us_history",
                                            "high_school_world_history",
                                            "international_law",
                                            "jurisprudence",
                                            "logical_fallacies",
                                            "moral_disputes",
                                            "moral_scenarios",
                                            "philosophy",
                                            "prehistory",
                                            "professional_law",
                                            "world_religions"};
constexpr std::string_view kSocialSciences[] = {"econometrics",
                                                "high_school_geography",
                                                "high_school_government_and_politics",
                                                "high_school_macroeconomics",
                                                "high_school_microeconomics",
                                                "high_school_psychology",
                                                "human_sexuality",
                                                "professional_psychology",
                                                "public_relations",
                                                "security_studies",
                                                "sociology",
                                                "us_foreign_policy"};
constexpr std::string_view kStem[] = {"abstract_algebra",
                                      "anatomy",
                                      "astronomy",
                                      "college_biology",
                                      "college_chemistry",
                                      "college_computer_science",
                                      "college_mathematics",
                                      "college_physics",
                                      "computer_security",
                                      "conceptual_physics",
                                      "electrical_engineering",
                                      "elementary_mathematics",
                                      "high_school_biology",
                                      "high_school_chemistry",
                                      "high_school_computer_science",
                                      "high_school_mathematics",
                                      "high_school_physics",
                                      "high_school_statistics",
                                      "machine_learning"};
constexpr std::string_view kOther[] = {"business_ethics",
                                       "clinical_knowledge",
                                       "college_medicine",
                                       "global_facts",
                                       "human_aging",
                                       "management",
                                       "marketing",
                                       "medical_genetics",
                                       "miscellaneous",
                                       "nutrition",
                                       "professional_accounting",
                                       "professional_medicine",
                                       "virology"};

std::string_view mmlu_category(std::string_view subject) {
  const auto has = [&](std::span<const std::string_view> of) { return std::ranges::find(of, subject) != of.end(); };
  if (has(kHumanities)) return "humanities";
  if (has(kSocialSciences)) return "social sciences";
  if (has(kStem)) return "stem";
  return has(kOther) ? "other" : "";
}

}  // namespace

constinit const Task kMmlu = {.name = "mmlu",
                              .summary = "knowledge of 57 subjects, a table each",
                              .read = mmlu_item,
                              .first_shots = true,
                              .preamble = mmlu_preamble,
                              .part = "_test.csv",
                              .part_examples = "_dev.csv",
                              .group = mmlu_category};

}  // namespace awq
