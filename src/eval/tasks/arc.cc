// ARC, the AI2 Reasoning Challenge (Clark et al., arXiv 1803.05457), both parts. As lettered_item() says, or with the
// prompt made already: {"query": "Question: ...\nAnswer:", "choices": [...], "gold": 2}
#include "eval/task.h"

namespace awq {
namespace {

TaskItem arc_item(const Record& r) {
  if (r.has("query")) {
    auto choices = r.texts("choices");
    const size_t gold = r.index("gold", choices.size());
    return {.contexts = {r.text("query")}, .choices = std::move(choices), .gold = gold};
  }
  TaskItem item = lettered_item(r, "question");
  item.contexts[0] = "Question: " + item.contexts[0] + "\nAnswer:";
  return item;
}

}  // namespace

constinit const Task kArcEasy = {
    .name = "arc_easy", .summary = "school science, easy questions", .read = arc_item, .normalized = true};
constinit const Task kArcChallenge = {
    .name = "arc_challenge", .summary = "school science, hard questions", .read = arc_item, .normalized = true};

}  // namespace awq
