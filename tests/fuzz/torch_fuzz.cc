// Archive, pickle and tensors of torch.save's files: what a state dict describes can be read, every byte of it.
#include <cstring>
#include <memory>

#include "awq/error.h"
#include "io/torch_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::unique_ptr<std::byte[]> bytes(new std::byte[size]);  // exactly as long: a read past the end is seen
  std::memcpy(bytes.get(), data, size);
  try {
    const awq::SafetensorsFile tensors = awq::TorchFile(std::span(bytes.get(), size), nullptr, "input").state_dict();
    unsigned sum = 0;
    for (const auto& [name, entry] : tensors.entries()) {
      const awq::Tensor t = tensors.tensor(name);
      for (size_t i = 0; i < t.bytes(); ++i) sum += unsigned(t.data()[i]);
    }
    static_cast<void>(sum);
  } catch (const awq::Error&) {
  }
  return 0;
}
