// HellaSwag (Zellers et al., arXiv 1905.07830). As published, {"activity_label": ..., "ctx_a": ..., "ctx_b": ...,
// "endings": [4], "label": 3}; or six lines of text: the context, the index of the right ending, four endings.
#include "base/check.h"
#include "eval/task.h"
#include "text/python_text.h"

namespace awq {
namespace {

/// Without the brackets that are left of WikiHow's markup.
std::string cleaned(std::string_view text) {
  std::string s = python::replace(python::strip(text, {}, true, true), " [title]", ". ", -1);
  for (size_t open = s.find('['); open != std::string::npos; open = s.find('[', open)) {
    const size_t close = s.find_first_of("]\n", open);
    if (close == std::string::npos) break;
    if (s[close] == ']')
      s.erase(open, close + 1 - open);
    else
      ++open;
  }
  return python::replace(s, "  ", " ", -1);
}

TaskItem hellaswag_lines(const Record& r) {
  const std::string gold = r.cell(1);
  if (gold.size() != 1 || gold[0] < '0' || gold[0] > '3') r.bad("second line", "a number from 0 to 3", gold);
  return {
      .contexts = {r.cell(0)}, .choices = {r.cell(2), r.cell(3), r.cell(4), r.cell(5)}, .gold = size_t(gold[0] - '0')};
}

TaskItem hellaswag_item(const Record& r) {
  if (r.is_cells()) return hellaswag_lines(r);
  const std::string context = r.text("ctx_a") + " " + python::capitalize(r.has("ctx_b") ? r.any("ctx_b") : "");
  TaskItem item{.contexts = {cleaned(r.text("activity_label") + ": " + context)}};
  for (const std::string& ending : r.texts("endings")) item.choices.push_back(cleaned(ending));
  item.gold = r.index("label", item.choices.size());
  return item;
}

}  // namespace

constinit const Task kHellaSwag = {.name = "hellaswag",
                                   .summary = "which of four endings follows",
                                   .read = hellaswag_item,
                                   .normalized = true,
                                   .lines = 6};

}  // namespace awq
