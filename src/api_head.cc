#include "api_head.h"

#include "formats/autoawq_pack.h"
#include "formats/load.h"

namespace awq {

std::optional<QuantSpec> choose_head(const ModelSpec& spec, int bits, const QuantSpec& of_blocks,
                                     std::string_view operation) {
  if (!bits) return {};
  if (bits != 4 && bits != 8)
    fail(operation, "--quantize-head {}: expected 4 or 8 bits; leave it out to keep the head in 16", bits);
  if (const int rows = rows_of_word(bits); spec.vocab % rows)
    fail(operation,
         "--quantize-head {}: {} has a row for each of {} tokens, no multiple of {}, which the AutoAWQ layout packs "
         "into a word; leave it out to keep the head in 16 bits",
         bits, parameter_name(spec, -1, {Role::head}), spec.vocab, rows);
  if (spec.head_unit_rows)
    fail(operation,
         "--quantize-head {}: {} divides its head's rows by their length, which codes do not have; leave it out", bits,
         spec.arch);
  QuantSpec head = of_blocks;
  head.bits = bits;
  head.portable_scales = head.portable_scales && bits <= 4;
  return head;
}

}  // namespace awq
