#pragma once
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace awq {

/// SHA-256 of what is added, in lower-case hexadecimal digits.
class Sha256 {
 public:
  Sha256();  // throws Error where OpenSSL has none
  ~Sha256();
  void add(std::span<const std::byte> bytes);
  void add(std::string_view text) { add(std::as_bytes(std::span(text.data(), text.size()))); }
  std::string hex();  // once

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};
inline std::string sha256_hex(std::string_view text) {
  Sha256 h;
  h.add(text);
  return h.hex();
}

}  // namespace awq
