#include "io/gguf_writer.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/check.h"

namespace awq {
namespace {

template <class T>
void append(std::string& to, const T& v) {
  to.append(reinterpret_cast<const char*>(&v), sizeof v);
}

void append_text(std::string& to, std::string_view text) {
  append(to, uint64_t(text.size()));
  to.append(text);
}

uint64_t aligned(uint64_t bytes) { return (bytes + kGgufAlignment - 1) / kGgufAlignment * kGgufAlignment; }

nlohmann::json to_json(const GgufPlace& p) {
  std::vector<int64_t> dims;
  for (int i = 0; i < p.shape.rank(); ++i) dims.push_back(p.shape[i]);
  return {p.name, dims, p.type, p.offset};
}

Shape shape_of(const nlohmann::json& dims) {
  const auto d = dims.get<std::vector<int64_t>>();
  return Shape(std::span<const int64_t>(d));
}

std::vector<GgufPlace> table_of(const nlohmann::json& state) {
  std::vector<GgufPlace> table;
  for (const auto& p : state.at("tensors"))
    table.push_back({p.at(0).get<std::string>(), shape_of(p.at(1)), p.at(2).get<uint32_t>(), p.at(3).get<uint64_t>()});
  return table;
}

}  // namespace

GgufMetadata& GgufMetadata::value(std::string_view key, GgufType type, std::string_view bytes) {
  append_text(bytes_, key);
  append(bytes_, type);
  bytes_.append(bytes);
  ++count_;
  return *this;
}

GgufMetadata& GgufMetadata::text(std::string_view key, std::string_view v) {
  std::string bytes;
  append_text(bytes, v);
  return value(key, GgufType::string, bytes);
}

template <class T>
GgufMetadata& GgufMetadata::array(std::string_view key, GgufType type, std::span<const T> v) {
  std::string bytes;
  append(bytes, type);
  append(bytes, uint64_t(v.size()));
  for (const T& item : v)
    if constexpr (std::is_same_v<T, std::string>)
      append_text(bytes, item);
    else
      append(bytes, item);
  return value(key, GgufType::array, bytes);
}

GgufMetadata& GgufMetadata::texts(std::string_view key, std::span<const std::string> v) {
  return array(key, GgufType::string, v);
}
GgufMetadata& GgufMetadata::numbers(std::string_view key, std::span<const float> v) {
  return array(key, GgufType::f32, v);
}
GgufMetadata& GgufMetadata::integers(std::string_view key, std::span<const int32_t> v) {
  return array(key, GgufType::i32, v);
}
GgufMetadata& GgufMetadata::flags(std::string_view key, std::span<const uint8_t> v) {
  return array(key, GgufType::boolean, v);
}

std::string gguf_header(const GgufMetadata& metadata, std::span<const GgufPlace> table) {
  std::string h = "GGUF";
  append(h, uint32_t(3));
  append(h, uint64_t(table.size()));
  append(h, metadata.count());
  h += metadata.bytes();
  for (const GgufPlace& p : table) {
    append_text(h, p.name);
    append(h, uint32_t(p.shape.rank()));
    for (int i = p.shape.rank(); i-- > 0;) append(h, uint64_t(p.shape[i]));  // fastest first
    append(h, p.type);
    append(h, p.offset);
  }
  h.resize(aligned(h.size()));
  return h;
}

GgufWriter::GgufWriter(const std::filesystem::path& path, const GgufMetadata& metadata, std::vector<GgufPlace> tensors)
    : metadata_(metadata),
      expected_(std::move(tensors)),
      header_bytes_(gguf_header(metadata_, expected_).size()),
      file_(path) {
  file_.write(std::string(header_bytes_, '\0'));
}

GgufWriter::GgufWriter(const std::filesystem::path& path, const GgufMetadata& metadata, std::vector<GgufPlace> tensors,
                       const nlohmann::json& state)
    : metadata_(metadata),
      expected_(std::move(tensors)),
      table_(table_of(state)),
      header_bytes_(gguf_header(metadata_, expected_).size()),
      data_bytes_(state.at("bytes")),
      file_(path, header_bytes_ + data_bytes_) {}

void GgufWriter::put(const std::string& name, const GgmlType& type, const Shape& shape,
                     std::span<const std::byte> bytes) {
  const auto known = std::ranges::find(expected_, name, &GgufPlace::name);
  if (known == expected_.end() || known->shape != shape ||
      std::ranges::find(table_, name, &GgufPlace::name) != table_.end())
    fail("write", "{} {} is not among the tensors that were announced, or came before", name, shape.text());
  table_.push_back({name, shape, type.id, data_bytes_});
  file_.write(bytes);
  const std::array<std::byte, kGgufAlignment> zeros{};
  const uint64_t padding = aligned(bytes.size()) - bytes.size();
  file_.write(std::span(zeros).first(padding));
  data_bytes_ += bytes.size() + padding;
}

nlohmann::json GgufWriter::state() const {
  nlohmann::json tensors = nlohmann::json::array();
  for (const GgufPlace& p : table_) tensors.push_back(to_json(p));
  return {{"tensors", tensors}, {"bytes", data_bytes_}};
}

void GgufWriter::close() {
  for (const GgufPlace& p : expected_)
    if (std::ranges::find(table_, p.name, &GgufPlace::name) == table_.end())
      fail("write", "{}: it was not given, so the model would be incomplete", p.name);
  file_.overwrite(0, gguf_header(metadata_, table_));
  file_.close();
}

}  // namespace awq
