// BoolQ (Clark et al., arXiv 1905.10044): {"question": ..., "passage": ..., "answer": true}, in SuperGLUE with "label".
#include "eval/task.h"

namespace awq {

constinit const Task kBoolQ = {
    .name = "boolq",
    .summary = "yes or no, from a passage",
    .read =
        [](const Record& r) {
          return TaskItem{.contexts = {r.text("passage") + "\nQuestion: " + r.text("question") + "?\nAnswer:"},
                          .choices = {"no", "yes"},
                          .gold = size_t(r.flag(r.has("answer") ? "answer" : "label"))};
        },
};

}  // namespace awq
