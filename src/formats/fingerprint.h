#pragma once
#include <string>

#include "formats/format.h"

namespace awq {

/// SHA-256, in hexadecimal, that tells float models apart: architecture and widths, and of every block the first row of
/// each matrix and the whole of each norm, in f32, so that one model has the same in files of several types that hold
/// the same values. Reads the first rows only. Throws Error if the model is quantized.
std::string fingerprint(const Checkpoint& model);

}  // namespace awq
