// The archive's directory and every byte of its files.
#include <cstring>
#include <memory>

#include "awq/error.h"
#include "io/zip.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::unique_ptr<std::byte[]> bytes(new std::byte[size]);  // exactly as long: a read past the end is seen
  std::memcpy(bytes.get(), data, size);
  try {
    unsigned sum = 0;
    const awq::ZipFile zip({bytes.get(), size}, "input");
    for (const auto& [name, content] : zip.files())
      for (std::byte b : content) sum += unsigned(b);
    static_cast<void>(sum);
  } catch (const awq::Error&) {
  }
  return 0;
}
