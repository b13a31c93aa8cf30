#pragma once
#include "awq/awq.h"
#include "engine/runtime.h"

namespace awq {

/// Tokens per second of a model that is loaded, and what its weights take. `peak_memory` is left empty.
SpeedReport measure_speed(Device& device, const Checkpoint& checkpoint, const Model& model, std::string_view kv,
                          const OnProgress& progress);

}  // namespace awq
