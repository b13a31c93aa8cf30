// WinoGrande (Sakaguchi et al., arXiv 1907.10641): "_" stands for one of two options. Partial evaluation (Trinh and Le,
// arXiv 1806.02847): how likely what follows the blank is behind each.
// {"sentence": "... _ ...", "option1": ..., "option2": ..., "answer": "1"}
#include "eval/task.h"
#include "text/python_text.h"

namespace awq {

constinit const Task kWinoGrande = {
    .name = "winogrande",
    .summary = "which of two a sentence means",
    .read =
        [](const Record& r) {
          const std::string s = r.text("sentence");
          const size_t blank = s.find('_');
          if (blank == std::string::npos) r.bad("sentence", "a blank, \"_\"", "\"" + s + "\"");
          const std::string before = s.substr(0, blank);
          const auto after = python::strip(std::string_view(s).substr(blank + 1), {}, true, true);
          return TaskItem{.contexts = {before + r.text("option1"), before + r.text("option2")},
                          .choices = {std::string(after)},
                          .gold = r.index("answer", 2, 1)};
        },
};

}  // namespace awq
