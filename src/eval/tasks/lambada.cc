// LAMBADA (Paperno et al., arXiv 1606.06031) in OpenAI's edition: the last word of a passage.
// {"text": ...}, or with the word apart: {"context": ..., "continuation": ...}
#include "eval/task.h"

namespace awq {

constinit const Task kLambada = {
    .name = "lambada_openai",
    .summary = "the last word of a passage",
    .kind = TaskKind::completion,
    .read =
        [](const Record& r) {
          if (!r.has("text"))
            return TaskItem{.contexts = {r.text("context")}, .choices = {" " + r.text("continuation")}};
          const std::string text = r.text("text");
          const size_t last = text.rfind(' ');
          if (last == std::string::npos || last + 1 == text.size()) r.bad("text", "several words", "\"" + text + "\"");
          return TaskItem{.contexts = {text.substr(0, last)}, .choices = {text.substr(last)}};
        },
    .between = "",
};

}  // namespace awq
