#include "text/wordlevel.h"

#include "text/json_fields.h"
#include "text/tokenizer_file.h"

namespace awq {

WordLevel::WordLevel(const ModelFile& model)
    : vocabulary_(read_vocabulary(model, "model WordLevel")),
      unknown_(vocabulary_.id_of(json_fields::text(model.options, "model WordLevel", "unk_token"))) {}

void WordLevel::encode(std::string_view piece, std::vector<int32_t>& ids) const {
  const std::optional<int32_t> id = vocabulary_.id_of(piece);
  if (!id && !unknown_)
    fail("tokenizer", "\"{}\" is not in the vocabulary, and neither is the token for unknown words", piece);
  ids.push_back(id ? *id : *unknown_);
}

}  // namespace awq
