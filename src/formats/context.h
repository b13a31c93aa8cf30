#pragma once
#include "formats/format.h"

namespace awq {

/// Throws Error if a sequence of `tokens` has more positions than the model was made for. `asked` says what wants them:
/// "--window 4096".
void require_context(const Checkpoint& model, std::string_view operation, std::string_view asked, int64_t tokens);

}  // namespace awq
