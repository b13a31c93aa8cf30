#include "base/memory.h"

#include <fstream>
#include <string>
#include <string_view>
#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace awq {
namespace {

/// The value of a line "Key:  123 kB".
int64_t kilobytes(const char* file, std::string_view key, int64_t otherwise) {
  std::ifstream info(file);
  for (std::string name, rest; info >> name; std::getline(info, rest))
    if (int64_t kb = 0; name == key && info >> kb) return kb * 1024;
  return otherwise;
}

}  // namespace

int64_t resident_memory() { return kilobytes("/proc/self/status", "VmRSS:", 0); }
int64_t peak_resident_memory() { return kilobytes("/proc/self/status", "VmHWM:", 0); }
// proc(5), clear_refs: 5 resets the peak resident set size.
bool reset_peak_memory() {
  std::ofstream file("/proc/self/clear_refs");
  file << 5 << std::flush;
  return bool(file);
}
int64_t available_memory() { return kilobytes("/proc/meminfo", "MemAvailable:", INT64_MAX); }

void return_free_memory() {
#ifdef __GLIBC__
  ::malloc_trim(0);
#endif
}

}  // namespace awq
