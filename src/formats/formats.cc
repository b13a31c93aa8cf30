#include <algorithm>
#include <array>

#include "base/check.h"
#include "formats/packed_sink.h"
#include "formats/params.h"
#include "io/file.h"

namespace awq {

namespace fs = std::filesystem;

extern const Format kAutoAwqGemv, kAutoAwqGemvFast, kAutoAwqMarlin, kLlmAwq, kModelOpt, kAutoAwq, kCompressedTensors,
    kGptq, kGptq1, kMlx, kFp8, kMxfp4, kHf, kGguf, kGgufF16, kGgufBf16, kGgufQ4_0, kGgufQ4_1, kGgufQ8_0;

std::span<const Format> formats() {
  // The first that detects a path opens it; hf takes every folder with a config.json.
  static const std::array table = {
      kAutoAwqGemv, kAutoAwqGemvFast, kAutoAwqMarlin, kLlmAwq,   kModelOpt, kAutoAwq, kCompressedTensors,
      kGptq,        kGptq1,           kMlx,           kFp8,      kMxfp4,    kHf,      kGguf,
      kGgufF16,     kGgufBf16,        kGgufQ4_0,      kGgufQ4_1, kGgufQ8_0};
  return table;
}

std::unique_ptr<Checkpoint> Checkpoint::open(const fs::path& path) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) fail("open", "{}: no such file or folder; check the path", path.string());
  for (const Format& f : formats())
    if (f.detect(path)) return f.open(path);
  if (fs::is_directory(path, ignored))
    fail("open", "{}: there is no config.json; a model folder has one beside its *.safetensors", path.string());
  fail("open", "{}: no known format; give a folder with config.json and *.safetensors, or a .gguf file", path.string());
}

Tensor Checkpoint::carried(const std::string& name) const {
  fail("open", "{}: there is no tensor {}", described_in(), name);
}

void CheckpointSink::put_carried(const std::string& name, const Tensor&) {
  fail("write", "{}: this format has a place for the language of a model alone", name);
}

void put_carried(const Checkpoint& source, CheckpointSink& sink) {
  for (const std::string& name : source.spec().carried) sink.put_carried(name, source.carried(name));
}

namespace {

bool holds(const Format& f, int bits) { return f.holds && std::ranges::count(f.holds->bits, bits); }

}  // namespace

void require_bits(const Format& format, int bits, std::string_view operation) {
  if (bits != 2 && bits != 3 && bits != 4 && bits != 8) fail(operation, "--bits {}: expected 2, 3, 4 or 8", bits);
  if (holds(format, bits)) return;
  fail(operation,
       "--bits {}: the format {} holds {}. `awq study methods --bits {}` measures what any of 2, 3, 4 and 8 bits cost, "
       "without a file",
       bits, format.name, format.holds ? fmt::format("{}", fmt::join(format.holds->bits, ", ")) : "floats alone", bits);
}

const Format& find_format(std::string_view name) {
  std::string names;
  for (const Format& f : formats()) {
    if (!f.create) continue;
    if (f.name == name) return f;
    names += (names.empty() ? "" : ", ") + std::string(f.name);
  }
  fail("convert", "\"{}\" is no format that awq writes; it writes {}", name, names);
}

std::string_view name_of(TensorUse use) {
  static constexpr std::array<std::string_view, 4> names = {"quantized", "float", "carried", "dropped"};
  return names[size_t(use)];
}

TensorUse use_of(const Checkpoint& model, int block, Param p) {
  if (is_norm(p.role)) return TensorUse::carried;
  if (std::holds_alternative<QuantSpec>(model.pieces(block, p).type)) return TensorUse::quantized;
  return block >= 0 && is_rounded(p.role) ? TensorUse::floats : TensorUse::carried;
}

std::string read_side_file(const Checkpoint& model, std::string_view name) {
  for (const SideFile& file : model.side_files())
    if (file.name == name) return file.path.empty() ? file.bytes : read_text(file.path);
  return "";
}

}  // namespace awq
