#pragma once
#include <stdexcept>

namespace awq {

/// Thrown for anything the caller can cause: bad files, unsupported models, impossible options. The message reads
/// "[operation] what: expected, got, likely cause, next step" with the file and the tensor where there is one.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace awq
