#pragma once
#include "formats/format.h"
#include "io/gguf.h"

namespace awq {

/// The model in a GGUF file. Throws Error unless every tensor the model needs is there with the right shape and a type
/// that can be read, and nothing else.
std::unique_ptr<Checkpoint> open_gguf(Gguf file);

/// The file itself, or the one that is in a folder of no other format; empty where there is none, or several.
std::filesystem::path gguf_file(const std::filesystem::path& path);

}  // namespace awq
