#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>

namespace awq {

/// Whether a folder's config.json describes experts of 4-bit floats.
bool is_mxfp4(const std::filesystem::path& folder);
/// Its config.json as that of the float model it stands for. Throws Error where it says what this version does not
/// know.
nlohmann::json float_config_of_mxfp4(const std::filesystem::path& folder);

}  // namespace awq
