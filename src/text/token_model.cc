#include "text/token_model.h"

#include <nlohmann/json.hpp>

#include "text/bpe.h"
#include "text/json_fields.h"
#include "text/tokenizer_file.h"
#include "text/unigram.h"
#include "text/wordlevel.h"
#include "text/wordpiece.h"

namespace awq {

namespace fields = json_fields;

namespace {

/// Files written before 2021 name no type.
std::string type_of(const ModelFile& model) {
  return fields::text(model.options, "model", "type", model.has_merges ? "BPE" : "");
}

}  // namespace

std::unique_ptr<TokenModel> make_token_model(const ModelFile& model) {
  if (!model.options.is_object()) fail("tokenizer", "tokenizer.json has no \"model\"; is the file complete?");
  const std::string type = type_of(model);
  if (type == "BPE") return std::make_unique<Bpe>(model);
  if (type == "Unigram") return std::make_unique<Unigram>(model);
  if (type == "WordPiece") return std::make_unique<WordPiece>(model);
  if (type == "WordLevel") return std::make_unique<WordLevel>(model);
  fail("tokenizer",
       "tokenizer.json: a model of type \"{}\" is not implemented; this version has BPE, Unigram, WordPiece and "
       "WordLevel",
       type);
}

Vocabulary read_vocabulary(const ModelFile& model, std::string_view component) {
  if (!model.has_ids) fields::bad(component, "vocab", "an object of tokens and ids");
  Vocabulary vocabulary(model.vocab.size());
  for (const ModelFile::Entry& e : model.vocab) {
    if (e.value < 0 || e.value >= Vocabulary::limit)
      fields::bad(component, "vocab", fmt::format("a whole number below {}", Vocabulary::limit));
    vocabulary.add(e.text, static_cast<int64_t>(e.value));
  }
  return vocabulary;
}

}  // namespace awq
