#pragma once
// What a GGUF file says of a model beside its tensors.
#include <nlohmann/json_fwd.hpp>

#include "io/gguf_writer.h"
#include "model/spec.h"

namespace awq {

/// The keys of the family; `config` is a Hugging Face folder's config.json. Throws Error unless the reader makes the
/// same model of them.
GgufMetadata gguf_metadata(const ModelSpec& spec, const nlohmann::json& config, uint32_t file_type);
/// Scalings of rope that files have as f32 [dims / 2]: Llama 3.1's divisors of angles, LongRoPE's factors.
std::vector<std::pair<std::string, Tensor>> gguf_rope_tensors(const ModelSpec& spec);
/// A file of the metadata with the tensors that the reader asks for to understand them.
Gguf gguf_outline(const GgufMetadata& metadata, const ModelSpec& spec);

}  // namespace awq
