#pragma once
#include <algorithm>

#include "kernels/registry.h"

namespace awq {

/// The best set that runs here and multiplies floats as they are: tolerances of f32 hold for it.
inline const kernels::KernelSet& float_set() {
  return **std::ranges::find_if(kernels::compiled(),
                                [](const kernels::KernelSet* s) { return kernels::supported(*s) && !s->tiles_bf16; });
}

}  // namespace awq
