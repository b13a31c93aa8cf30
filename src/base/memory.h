#pragma once
#include <cstdint>

namespace awq {

// Of this process and machine, in bytes; where the system does not tell, 0 and, for what is available, INT64_MAX.
int64_t resident_memory();
int64_t peak_resident_memory();
/// The peak counts from now on. False where the system does not do that.
bool reset_peak_memory();
int64_t available_memory();
/// Gives back to the system what is free: after much work in small pieces, an allocator keeps it.
void return_free_memory();

}  // namespace awq
