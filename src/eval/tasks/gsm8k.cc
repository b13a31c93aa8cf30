// GSM8K (Cobbe et al., arXiv 2110.14168): {"question": ..., "answer": "... #### 72"}. The model writes the answer.
#include "eval/task.h"

namespace awq {

constinit const Task kGsm8k = {
    .name = "gsm8k",
    .summary = "grade school mathematics, written out",
    .kind = TaskKind::generation,
    .read =
        [](const Record& r) {
          return TaskItem{.contexts = {"Question: " + r.text("question") + "\nAnswer:"}, .choices = {r.text("answer")}};
        },
    .shots = 5,
};

}  // namespace awq
