#include "eval/reference.h"

#include <map>

#include "base/check.h"
#include "base/sha256.h"

namespace awq {
namespace {

std::string entry(int window) { return fmt::format("window.{}", window); }

int windows_in(const ReferenceText& t) { return int(t.tokens.size()) / t.window; }

SafetensorsWriter::Metadata description_of(const ReferenceText& t) {
  const std::string_view ids(reinterpret_cast<const char*>(t.tokens.data()), t.tokens.size_bytes());
  return {{"awq_reference", "1"},
          {"tokens_sha256", sha256_of(ids)},
          {"windows", std::to_string(windows_in(t))},
          {"protocol", t.protocol},
          {"window", std::to_string(t.window)},
          {"dim", std::to_string(t.dim)},
          {"vocab", std::to_string(t.vocab)}};
}

}  // namespace

ReferenceWriter::ReferenceWriter(const std::filesystem::path& path, const ReferenceText& text) : path_(path) {
  if (std::filesystem::exists(path)) fail("eval", "{}: the file exists; name another or remove it", path.string());
  const auto room = uint64_t(windows_in(text)) * SafetensorsWriter::room_for(entry(windows_in(text)));
  file_.emplace(partial(), room, description_of(text));
}

void ReferenceWriter::put(int window, const Tensor& hidden) { file_->put(entry(window), hidden); }

void ReferenceWriter::close() {
  file_->close();
  std::filesystem::rename(partial(), path_);
}

ReferenceReader::ReferenceReader(const std::filesystem::path& path, const ReferenceText& text)
    : shape_{text.window - 1 - text.first, text.dim}, file_(MappedFile(path)) {
  const auto& metadata = file_.metadata();
  for (const auto& [key, value] : description_of(text)) {
    const auto there = metadata.find(key);
    const std::string got = there == metadata.end() ? "none" : there->second;
    if (got != value)
      fail("eval",
           "{}: the reference's {} is {}, expected {}. It must be of the same text, --protocol, --window, "
           "--windows and original",
           path.string(), key, got, value);
  }
}

Tensor ReferenceReader::hidden(int window) const {
  Tensor t = file_.tensor(entry(window));
  if (t.dtype() != DType::f32 || t.shape() != shape_)
    fail("eval", "{}: {} is not f32 of {} positions; the file is damaged, save it again", file_.name(), entry(window),
         shape_[0]);
  return t;
}

}  // namespace awq
