#include "text/protobuf.h"

#include "base/check.h"

namespace awq {
namespace {

[[noreturn]] void damaged(std::string_view what) {
  fail("tokenizer", "the SentencePiece model {}; is it one, and was it downloaded whole?", what);
}

}  // namespace

std::string_view ProtoReader::take(uint64_t bytes) {
  if (bytes > rest_.size()) damaged("is cut off");
  const std::string_view taken = rest_.substr(0, size_t(bytes));
  rest_.remove_prefix(size_t(bytes));
  return taken;
}

uint64_t ProtoReader::varint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const auto byte = static_cast<unsigned char>(take(1)[0]);
    value |= uint64_t(byte & 0x7F) << shift;
    if (byte < 0x80) return value;
  }
  damaged("has a number of more than 64 bits");
}

uint64_t ProtoReader::fixed(size_t bytes) {
  uint64_t value = 0;
  int shift = 0;
  for (const char b : take(bytes)) {
    value |= uint64_t(static_cast<unsigned char>(b)) << shift;
    shift += 8;
  }
  return value;
}

std::optional<ProtoField> ProtoReader::next() {
  if (rest_.empty()) return std::nullopt;
  const uint64_t key = varint();
  if (key >> 3 == 0 || key >> 3 > UINT32_MAX) damaged("has a field without a number");
  ProtoField field{.number = uint32_t(key >> 3)};
  switch (key & 7) {
    case 0:
      field.value = varint();
      break;
    case 1:
      field.value = fixed(8);
      break;
    case 2:
      field.bytes = take(varint());
      field.delimited = true;
      break;
    case 5:
      field.value = fixed(4);
      break;
    default:
      damaged("has a field of an unknown kind");
  }
  return field;
}

}  // namespace awq
