// Any bytes either are a GGUF model, whose every part can then be read, or give an awq::Error.
#include <cstring>

#include "formats/gguf.h"
#include "formats/gguf_tokenizer.h"

namespace {

using namespace awq;

template <class Work>
void allow_error(Work work) {
  try {
    work();
  } catch (const Error&) {
  }
}

void read_weights(const Checkpoint& model) {
  for (int i = 0; i < int(model.spec().blocks.size()); ++i) {
    for (const Param p : model.spec().blocks[size_t(i)].params()) {
      model.weight(i, p);
      if (model.spec().blocks[size_t(i)].has_bias(p)) model.bias(i, p);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto copy = std::make_shared<Tensor>(Tensor::empty({int64_t(size)}, DType::u8));
  if (size) std::memcpy(copy->data(), data, size);
  allow_error([&] {
    const Gguf file("fuzz.gguf", {copy->data(), size}, copy);
    for (const GgufTensor& t : file.tensors()) allow_error([&] { file.tensor(t); });
    allow_error([&] { gguf_side_files(file); });
    allow_error([&] { read_weights(*open_gguf(file)); });
  });
  return 0;
}
