// The header and every tensor it describes. An input whose first byte is even is a file as it is; after an odd one
// comes a header, a newline and the data, so that mutations need not keep the length right.
#include <algorithm>
#include <cstring>
#include <memory>
#include <string>

#include "awq/error.h"
#include "io/safetensors.h"

namespace {

using namespace awq;

std::string file_from(std::string_view input) {
  if (input.empty() || input[0] % 2 == 0) return std::string(input.substr(std::min<size_t>(1, input.size())));
  input.remove_prefix(1);
  const uint64_t header = std::min(input.find('\n'), input.size());
  std::string file(8, '\0');
  std::memcpy(file.data(), &header, 8);
  return file.append(input.substr(0, header)).append(input.substr(std::min(header + 1, input.size())));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string file = file_from({reinterpret_cast<const char*>(data), size});
  const std::shared_ptr<std::byte[]> bytes(new std::byte[file.size()]);  // exactly as long: a read past the end is seen
  std::memcpy(bytes.get(), file.data(), file.size());
  try {
    const SafetensorsFile parsed({bytes.get(), file.size()}, bytes, "input");
    for (const auto& [name, entry] : parsed.entries())
      if (entry.dtype) parsed.tensor(name).clone();  // reads every byte
  } catch (const Error&) {
  }
  return 0;
}
