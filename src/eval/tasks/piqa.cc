// PIQA (Bisk et al., "PIQA: Reasoning about Physical Commonsense in Natural Language", arXiv 1911.11641).
// {"goal": ..., "sol1": ..., "sol2": ..., "label": 0}; as published valid.jsonl has no labels, valid-labels.lst has
// them.
#include "eval/task.h"

namespace awq {

constinit const Task kPiqa = {
    .name = "piqa",
    .summary = "everyday physics: which of two solutions",
    .read =
        [](const Record& r) {
          return TaskItem{.contexts = {"Question: " + r.text("goal") + "\nAnswer:"},
                          .choices = {r.text("sol1"), r.text("sol2")},
                          .gold = r.index("label", 2)};
        },
    .normalized = true,
    .labels = "-labels.lst",
};

}  // namespace awq
