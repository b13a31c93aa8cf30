#include "text/token_model.h"

#include <nlohmann/json.hpp>

#include "text/bpe.h"
#include "text/json_fields.h"

namespace awq {

namespace fields = json_fields;

std::unique_ptr<TokenModel> make_token_model(const nlohmann::json& model) {
  if (!model.is_object()) fail("tokenizer", "tokenizer.json has no \"model\"; is the file complete?");
  // Files written before 2021 name no type.
  const std::string type = fields::text(model, "model", "type", model.contains("merges") ? "BPE" : "");
  if (type == "BPE") return std::make_unique<Bpe>(model);
  fail("tokenizer", "tokenizer.json: a model of type \"{}\" is not implemented; this version has BPE", type);
}

}  // namespace awq
