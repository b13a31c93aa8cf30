#pragma once
#include <string>
#include <string_view>

#include "model/spec.h"

namespace awq {

struct GroupChoice {
  int size;
  std::string reason;  // why it is not 128, where it is not and was not asked for
};
/// `asked` columns a group, or with 0 the largest of 128, 64 and 32 that divides every width of the model. Throws Error
/// in the name of `operation` where none does.
GroupChoice choose_group(const ModelSpec& spec, int asked, std::string_view operation);
/// The same, and -1 for whole rows: QuantSpec::kWholeRow.
GroupChoice choose_group_or_rows(const ModelSpec& spec, int asked, std::string_view operation);

/// "groups of 64", "whole rows"
std::string text_of_group(int group_size);

}  // namespace awq
