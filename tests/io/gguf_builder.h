#pragma once
// Writes GGUF files for tests, whole or wrong.
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "io/gguf.h"

namespace awq {

template <class T>
std::string raw(const T& v) {
  return {reinterpret_cast<const char*>(&v), sizeof v};
}
inline std::string gguf_string(std::string_view s) { return raw(uint64_t(s.size())) + std::string(s); }

class GgufBuilder {
 public:
  uint32_t version = 3, alignment = 32;

  GgufBuilder& value(std::string_view key, GgufType type, std::string_view bytes) {
    entries_.push_back({gguf_string(key), raw(uint32_t(type)) + std::string(bytes)});
    return *this;
  }
  GgufBuilder& without(std::string_view key) {
    std::erase_if(entries_, [&](const auto& e) { return e.first == gguf_string(key); });
    return *this;
  }
  GgufBuilder& without_tensor(std::string_view name) {
    std::erase_if(tensors_, [&](const auto& t) { return t.first == gguf_string(name); });
    return *this;
  }
  GgufBuilder& u32(std::string_view key, uint32_t v) { return value(key, GgufType::u32, raw(v)); }
  GgufBuilder& f32(std::string_view key, float v) { return value(key, GgufType::f32, raw(v)); }
  GgufBuilder& flag(std::string_view key, bool v) { return value(key, GgufType::boolean, raw(uint8_t(v))); }
  GgufBuilder& text(std::string_view key, std::string_view v) { return value(key, GgufType::string, gguf_string(v)); }
  GgufBuilder& array(std::string_view key, GgufType element, uint64_t count, std::string_view items) {
    return value(key, GgufType::array, raw(uint32_t(element)) + raw(count) + std::string(items));
  }
  GgufBuilder& texts(std::string_view key, const std::vector<std::string>& v) {
    std::string items;
    for (const auto& s : v) items += gguf_string(s);
    return array(key, GgufType::string, v.size(), items);
  }
  template <class T>
  GgufBuilder& numbers(std::string_view key, GgufType element, const std::vector<T>& v) {
    return array(key, element, v.size(), {reinterpret_cast<const char*>(v.data()), v.size() * sizeof(T)});
  }
  /// `dims` fastest first, as the file has them.
  GgufBuilder& tensor(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type,
                      const std::string& bytes) {
    return tensor_at(name, dims, type, bytes, data_.size());
  }
  GgufBuilder& tensor_at(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type,
                         const std::string& bytes, uint64_t offset) {
    std::string t = raw(uint32_t(dims.size()));
    for (uint64_t d : dims) t += raw(d);
    tensors_.push_back({gguf_string(name), t + raw(type) + raw(offset)});
    data_ += bytes;
    data_.resize((data_.size() + alignment - 1) / alignment * alignment);
    return *this;
  }
  GgufBuilder& floats(std::string_view name, const std::vector<uint64_t>& dims, const std::vector<float>& v) {
    return tensor(name, dims, 0, {reinterpret_cast<const char*>(v.data()), v.size() * 4});
  }

  std::string bytes() const {
    std::string s = "GGUF" + raw(version) + raw(uint64_t(tensors_.size())) + raw(uint64_t(entries_.size()));
    for (const auto& e : entries_) s += e.first + e.second;
    for (const auto& t : tensors_) s += t.first + t.second;
    s.resize((s.size() + alignment - 1) / alignment * alignment);
    return s + data_;
  }

 private:
  std::vector<std::pair<std::string, std::string>> entries_, tensors_;  // name, the rest
  std::string data_;
};

inline Gguf parse_gguf(std::string_view bytes) {
  const auto copy = std::make_shared<Tensor>(Tensor::empty({int64_t(bytes.size())}, DType::u8));
  std::memcpy(copy->data(), bytes.data(), bytes.size());
  return Gguf("test.gguf", {copy->data(), bytes.size()}, copy);
}
inline Gguf parse_gguf(const GgufBuilder& b) { return parse_gguf(b.bytes()); }

/// The message of the awq::Error that `work` throws; empty if it throws none.
template <class Work>
std::string error_of(Work work) {
  try {
    work();
  } catch (const Error& e) {
    return e.what();
  }
  return {};
}

/// A sum that depends on every bit of a tensor as f32 and on where it stands; easy to repeat in numpy.
inline uint64_t fingerprint(const Tensor& t) {
  const Tensor f = t.to(DType::f32);
  uint64_t sum = 0, weight = 1;
  for (float v : f.as<float>()) {
    uint32_t bits;
    std::memcpy(&bits, &v, sizeof bits);
    sum += bits * weight;
    weight += 2;
  }
  return sum;
}

}  // namespace awq
