#pragma once
#include <string_view>

#include "text/jinja_ast.h"

namespace awq::jinja {

/// The statements of a template. Throws awq::Error with line and column for what is wrong or not implemented:
/// inheritance, inclusion, recursive loops, argument unpacking.
Body parse(std::string_view source);

}  // namespace awq::jinja
