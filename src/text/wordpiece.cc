#include "text/wordpiece.h"

#include "text/json_fields.h"
#include "text/tokenizer_file.h"
#include "text/utf8.h"

namespace awq {

namespace fields = json_fields;

WordPiece::WordPiece(const ModelFile& model) : vocabulary_(read_vocabulary(model, "model WordPiece")) {
  constexpr std::string_view where = "model WordPiece";
  const std::string unknown = fields::text(model.options, where, "unk_token");
  const auto id = vocabulary_.id_of(unknown);
  if (!id)
    fail("tokenizer", "tokenizer.json: model WordPiece: the unknown token \"{}\" is not in the vocabulary", unknown);
  unknown_ = *id;
  prefix_ = fields::text(model.options, where, "continuing_subword_prefix");
  const nlohmann::json* longest = fields::find(model.options, "max_input_chars_per_word");
  if (!longest) fields::bad(where, "max_input_chars_per_word", "a number");
  longest_ = size_t(fields::index(*longest, where, "max_input_chars_per_word", 4096));  // time is quadratic in it
}

bool WordPiece::cover(std::string_view piece, std::vector<int32_t>& ids) const {
  for (size_t begin = 0; begin < piece.size();) {
    std::string text = begin > 0 ? prefix_ : "";
    text.append(piece.substr(begin));
    const size_t least = begin > 0 ? prefix_.size() : 0;
    std::optional<int32_t> id;
    while (text.size() > least && !(id = vocabulary_.id_of(text))) {
      size_t end = text.size();
      utf8::previous(text, end);
      text.resize(end);
    }
    if (!id) return false;
    ids.push_back(*id);
    begin += text.size() - least;
  }
  return true;
}

void WordPiece::encode(std::string_view piece, std::vector<int32_t>& ids) const {
  const size_t before = ids.size();
  if (utf8::length(piece) <= longest_ && cover(piece, ids)) return;
  ids.resize(before);
  ids.push_back(unknown_);
}

}  // namespace awq
