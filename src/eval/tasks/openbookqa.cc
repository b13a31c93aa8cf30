// OpenBookQA (Mihaylov et al., arXiv 1809.02789). As lettered_item() says.
#include "eval/task.h"

namespace awq {

constinit const Task kOpenBookQa = {
    .name = "openbookqa",
    .summary = "elementary science, which needs a fact",
    .read = [](const Record& r) { return lettered_item(r, "question_stem"); },
    .normalized = true,
};

}  // namespace awq
