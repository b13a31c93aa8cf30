#include "api_group_size.h"

#include "formats/load.h"
#include "quantizer/quantize.h"

namespace awq {
namespace {

constexpr int kGroupSizes[] = {128, 64, 32};

std::string misfit(const ModelSpec& spec, int group) {
  for (size_t i = 0; i < spec.blocks.size(); ++i)
    for (Param p : spec.blocks[i].params())
      if (!is_norm(p.role) && spec.blocks[i].shape(p).second % group)
        return fmt::format("{} has {} columns", parameter_name(spec, int(i), p), spec.blocks[i].shape(p).second);
  return "";
}

}  // namespace

GroupChoice choose_group(const ModelSpec& spec, int asked, std::string_view operation) {
  if (asked) {
    if (asked % 32 || asked < 32)
      fail(operation,
           "--group-size {}: expected a multiple of 32, such as 128, 64 or 32, or, of quantize and study, -1 for whole "
           "rows",
           asked);
    if (!group_fits(spec, asked))
      fail(operation,
           "--group-size {} does not divide every width of this model: {}. Leave it out to get the largest of 128, 64 "
           "and 32 that does",
           asked, misfit(spec, asked));
    return {asked, ""};
  }
  for (int g : kGroupSizes)
    if (group_fits(spec, g))
      return {g, g == kGroupSizes[0] ? "" : fmt::format("{}, no multiple of {}", misfit(spec, 2 * g), 2 * g)};
  fail(operation, "no group size fits: {}, which neither 128, 64 nor 32 divides", misfit(spec, 32));
}

// Kernels and formats take columns by 8 to 32: what holds for groups of 32 holds for rows of whole ones.
GroupChoice choose_group_or_rows(const ModelSpec& spec, int asked, std::string_view operation) {
  if (asked != QuantSpec::kWholeRow) return choose_group(spec, asked, operation);
  if (!group_fits(spec, 32)) fail(operation, "--group-size -1: {}, no multiple of 32", misfit(spec, 32));
  return {asked, ""};
}

std::string text_of_group(int group_size) {
  return group_size == QuantSpec::kWholeRow ? "whole rows" : fmt::format("groups of {}", group_size);
}

}  // namespace awq
