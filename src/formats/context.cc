#include "formats/context.h"

#include "base/check.h"

namespace awq {

void require_context(const Checkpoint& model, std::string_view operation, std::string_view asked, int64_t tokens) {
  const ModelSpec& m = model.spec();
  if (tokens <= m.max_context) return;
  const bool gguf = model.format() == "gguf";
  fail(operation,
       "{}: the model was made for {} tokens ({} {}, {}), but {} needs {}; what it computes at positions "
       "that it never saw means nothing. Ask for fewer; or, where its authors give a scaling rule for more, such as "
       "yarn, {}",
       model.described_in(), m.max_context, gguf ? "context_length" : m.context_key,
       model.config().value(m.context_key, nlohmann::json("absent")).dump(), m.context_rule, asked, tokens,
       gguf ? "take a file that was converted with it" : "put it into rope_scaling there");
}

}  // namespace awq
