// The pickle's opcodes, and the values as deep as a search has them.
#include <cstring>
#include <memory>

#include "awq/error.h"
#include "io/pickle.h"

namespace {

size_t size_of(const awq::PickleValue& v, int depth) {
  size_t n = 1 + v.text.size();
  for (size_t i = 0; depth && i < std::min<size_t>(v.items.size(), 8); ++i) n += size_of(*v.items[i], depth - 1);
  return n;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::unique_ptr<std::byte[]> bytes(new std::byte[size]);  // exactly as long: a read past the end is seen
  std::memcpy(bytes.get(), data, size);
  try {
    size_of(awq::Pickle({bytes.get(), size}, "input").root(), 5);
  } catch (const awq::Error&) {
  }
  return 0;
}
