#pragma once
#include <span>
#include <string>
#include <string_view>

namespace awq {

/// How a published kind of byte-level BPE splits text, where a file has the vocabulary but names the kind only (GGUF's
/// tokenizer.ggml.pre, tiktoken's rank files).
struct PublishedSplitting {
  std::string_view name;
  bool bos;                 // whether the kind begins texts with a token where the file does not say
  std::string_view fields;  // of the tokenizer.json that its models are published with: JSON, to be merged into one
};

std::span<const PublishedSplitting> published_splittings();
/// Null if the name is not known.
const PublishedSplitting* find_splitting(std::string_view name);
std::string splitting_names();  // "smollm, llama-bpe, ..."

}  // namespace awq
