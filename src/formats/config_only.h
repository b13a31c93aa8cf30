#pragma once
#include "formats/format.h"

namespace awq {

/// Whether a folder has a config.json and no weights in any form.
bool is_config_only(const std::filesystem::path& folder);
/// A float model of which only config.json is there: every parameter has its shape, and the type that the config names.
/// Reading one throws Error.
std::unique_ptr<Checkpoint> open_config_only(const std::filesystem::path& folder);

}  // namespace awq
