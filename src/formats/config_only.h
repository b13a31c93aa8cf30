#pragma once
#include "formats/format.h"

namespace awq {

/// Whether a folder has a config.json and no weights in any form.
bool is_config_only(const std::filesystem::path& folder);
/// A float model, or one of 8-bit floats, of which only config.json is there: every parameter has its shape, and the
/// type that the config names, or that 8-bit floats are read in. Reading one throws Error.
std::unique_ptr<Checkpoint> open_config_only(const std::filesystem::path& folder);

}  // namespace awq
