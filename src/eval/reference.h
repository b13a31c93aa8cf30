#pragma once
#include <filesystem>
#include <optional>
#include <span>

#include "io/safetensors.h"

namespace awq {

/// What a reference was made of, which must be what it is used with.
struct ReferenceText {
  std::span<const int32_t> tokens;  // of all windows
  std::string protocol;
  int window = 0, first = 0;  // tokens of a window, and the first position whose prediction counts
  int dim = 0, vocab = 0;     // of the model
};

/// Last hidden states of an original that does not fit beside the models that are compared with it: f32 [window - 1 -
/// first, dim] a window, "window.0" and so on. With the model's head they are its logits, bit for bit, in dim / vocab
/// of the room.
class ReferenceWriter {
 public:
  ReferenceWriter(const std::filesystem::path& path, const ReferenceText& text);  // throws Error if the file exists
  void put(int window, const Tensor& hidden);
  void close();  // only now the file is there

 private:
  std::filesystem::path partial() const { return path_.string() + ".partial"; }
  std::filesystem::path path_;
  std::optional<SafetensorsWriter> file_;
};

class ReferenceReader {
 public:
  /// Throws Error where it was made of another text, protocol or model.
  ReferenceReader(const std::filesystem::path& path, const ReferenceText& text);
  Tensor hidden(int window) const;

 private:
  Shape shape_;
  SafetensorsFile file_;
};

}  // namespace awq
