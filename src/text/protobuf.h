#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

namespace awq {

/// A field of a protobuf message on the wire.
struct ProtoField {
  uint32_t number;
  uint64_t value = 0;        // of varints and fixed widths, as raw bits
  std::string_view bytes{};  // of what is delimited by its length
  bool delimited = false;
};

/// Reads fields until the message ends. Throws Error where it is cut off or malformed; groups are not known.
class ProtoReader {
 public:
  explicit ProtoReader(std::string_view message) : rest_(message) {}
  std::optional<ProtoField> next();

 private:
  uint64_t varint();
  uint64_t fixed(size_t bytes);
  std::string_view take(uint64_t bytes);

  std::string_view rest_;
};

}  // namespace awq
