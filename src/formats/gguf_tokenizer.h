#pragma once
#include <vector>

#include "formats/format.h"
#include "io/gguf.h"

namespace awq {

/// Of tokenizer.ggml.token_type.
enum GgufTokenType : int32_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

/// tokenizer.json, tokenizer_config.json and generation_config.json made of the metadata `tokenizer.*`; nothing where
/// the file has no tokenizer. Reads the models "gpt2" (byte-level BPE) and "llama" (SentencePiece BPE). Throws Error
/// for other models, unknown pre-tokenizers, and vocabularies or merges that contradict themselves.
///
/// Every token stays in the vocabulary, special ones too, so that ids are exact whatever their order; only the fillers
/// "[PAD<id>]" that converters add up to the size of the embedding are left out. Types 2 and 3 (unknown, control)
/// become special added tokens, type 4 (user-defined) plain added tokens.
std::vector<SideFile> gguf_side_files(const Gguf& file);

}  // namespace awq
