#pragma once
#include <optional>

#include "quantizer/method.h"
#include "quantizer/refine.h"

namespace awq {

/// AWQ; with a refinement also: scales are judged by codes that have been refined once, and in the end codes begin as
/// those that make up for the errors before them and are refined together with group scales.
std::unique_ptr<Method> make_awq(const std::optional<Refinement>& refinement);

}  // namespace awq
