#pragma once
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace awq {

struct ModelFile;

/// The step that turns a pre-tokenized piece of text into ids: the "model" of tokenizer.json. Immutable; may be used
/// from several threads.
class TokenModel {
 public:
  virtual ~TokenModel() = default;
  virtual const Vocabulary& vocabulary() const = 0;
  /// Appends the ids of `piece`, which is valid UTF-8.
  virtual void encode(std::string_view piece, std::vector<int32_t>& ids) const = 0;
};

/// Throws Error naming the type if it is not implemented.
std::unique_ptr<TokenModel> make_token_model(const ModelFile& model);

/// "vocab" of a model that lists ids; `component` is for errors.
Vocabulary read_vocabulary(const ModelFile& model, std::string_view component);

}  // namespace awq
