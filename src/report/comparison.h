#pragma once
#include <string>

#include "awq/awq.h"

namespace awq {

/// Tables of a comparison.
std::string comparison_markdown(const ComparisonReport& r);
/// One HTML page that needs nothing else, with size against KL where there is a text.
std::string comparison_page(const ComparisonReport& r);

}  // namespace awq
