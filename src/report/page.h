#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace awq {

/// awq-report.json as one HTML page that needs nothing else: no script, no font, no image, no network; and says so to
/// the browser, so that nothing in a name or an answer could load or run anything. `run`: what differs between runs,
/// time and memory; may be null.
std::string report_page(const nlohmann::ordered_json& report, const nlohmann::ordered_json* run = nullptr);

/// Its style sheet.
std::string_view page_style();

}  // namespace awq
