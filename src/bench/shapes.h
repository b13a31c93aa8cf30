#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace awq {

std::vector<std::string_view> shape_names();
/// The config.json of a published model, reduced to what decides its shape. Throws Error for a name that is not in
/// shape_names(), listing them.
nlohmann::json shape_config(std::string_view name);

}  // namespace awq
