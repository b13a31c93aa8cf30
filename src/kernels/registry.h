#pragma once
#include <span>
#include <string_view>

#include "kernels/kernels.h"

namespace awq::kernels {

/// All sets compiled in, best first; the last one is portable and always runs.
std::span<const KernelSet* const> compiled();
bool supported(const KernelSet& set);
/// The best supported set, or the one named. An empty name reads AWQ_ISA. Throws Error if that set is unknown or
/// cannot run here, naming what exists.
const KernelSet& select(std::string_view name = {});

}  // namespace awq::kernels
