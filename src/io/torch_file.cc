#include "io/torch_file.h"

#include <algorithm>
#include <fstream>

#include "base/check.h"
#include "base/numeric.h"

namespace awq {
namespace {

using Kind = PickleValue::Kind;

std::string text(std::span<const std::byte> b) { return {reinterpret_cast<const char*>(b.data()), b.size()}; }

int64_t size_in(const PickleValue& v, const std::string& where) {
  if (v.kind != Kind::integer || v.integer < 0) fail("open", "{}: an impossible size; the file is damaged", where);
  return v.integer;
}

void check_dense(const std::vector<int64_t>& dims, const PickleValue& strides, const std::string& where) {
  if (dims.empty() || dims.size() > 4 || strides.items.size() != dims.size())
    fail("open", "{}: a tensor of {} dimensions and {} strides", where, dims.size(), strides.items.size());
  int64_t step = 1;
  for (size_t i = dims.size(); i-- > 0; step = checked_mul(step, dims[i]))
    if (dims[i] != 1 && size_in(*strides.items[i], where) != step)
      fail("open", "{}: its values do not lie row by row, which llm-awq's do", where);
}

}  // namespace

TorchFile::TorchFile(std::span<const std::byte> bytes, std::shared_ptr<const void> owner, std::string name)
    : bytes_(bytes),
      owner_(std::move(owner)),
      zip_(bytes, std::move(name)),
      folder_(find_folder()),
      pickle_(content("data.pkl"), zip_.name()) {
  const auto order = zip_.files().find(folder_ + "byteorder");
  if (order != zip_.files().end() && text(order->second) != "little")
    fail("open", "{}: its numbers are {:.20}-endian; only little-endian ones are read", this->name(),
         text(order->second));
}

std::string TorchFile::find_folder() const {
  constexpr std::string_view pickle = "data.pkl";
  for (const auto& [file, bytes] : zip_.files())
    if (file.ends_with(pickle) && std::ranges::count(file, '/') == 1 && file[file.size() - pickle.size() - 1] == '/')
      return file.substr(0, file.size() - pickle.size());
  fail("open", "{}: the archive has no ARCHIVE/data.pkl; it was not written by torch.save", name());
}

std::span<const std::byte> TorchFile::content(const std::string& file) const {
  const auto it = zip_.files().find(folder_ + file);
  if (it == zip_.files().end()) fail("open", "{}: the archive has no {}{}; it is damaged", name(), folder_, file);
  return it->second;
}

SafetensorsEntry TorchFile::entry(const PickleValue& t, const std::string& where) const {
  const PickleValue &storage = *t.items[0], &shape = *t.items[2], &strides = *t.items[3];
  std::vector<int64_t> dims;
  for (const PickleValue* d : shape.items) dims.push_back(size_in(*d, where));
  check_dense(dims, strides, where);
  const Shape s(dims);
  const int64_t first = size_in(*t.items[1], where), size = int64_t(size_of(storage.dtype));
  const auto data = content("data/" + storage.text);
  const auto have = int64_t(data.size()) / size;
  if (first > have || s.elements() > have - first)
    fail("open", "{}: elements {} to {} of a storage of {}; the file is damaged", where, first,
         double(first) + double(s.elements()), have);
  const auto begin = uint64_t(data.data() - bytes_.data()) + uint64_t(first * size);
  return {std::string(name_of(storage.dtype)), storage.dtype, s, begin, begin + uint64_t(s.elements() * size)};
}

Tensor TorchFile::floats(const PickleValue& t, const std::string& where) const {
  const SafetensorsEntry e = entry(t, where);
  if (*e.dtype != DType::f32 && *e.dtype != DType::f16 && *e.dtype != DType::bf16)
    fail("open", "{}: its numbers are {}, where floats are expected", where, e.type);
  Tensor copy = Tensor::empty(e.shape, *e.dtype);  // where a storage begins is aligned to nothing
  std::copy_n(bytes_.data() + e.begin, copy.bytes(), copy.data());
  return copy.to(DType::f32);
}

SafetensorsFile TorchFile::state_dict() const {
  if (root().kind != Kind::dict)
    fail("open", "{}: it is {} where a dict of tensors is expected, as torch.save writes it of model.state_dict()",
         name(), name_of(root().kind));
  SafetensorsFile::Entries entries;
  for (size_t i = 0; i < root().items.size(); i += 2) {
    const PickleValue &key = *root().items[i], &value = *root().items[i + 1];
    if (key.kind != Kind::text || value.kind != Kind::tensor)
      fail("open", "{}: its dict has {} for {}, where names and tensors are expected", name(), name_of(value.kind),
           key.kind == Kind::text ? fmt::format("\"{:.100}\"", key.text) : name_of(key.kind));
    if (!entries.emplace(key.text, entry(value, fmt::format("{}: tensor {:.100}", name(), key.text))).second)
      fail("open", "{}: its dict has \"{:.100}\" twice", name(), key.text);
  }
  return SafetensorsFile(std::move(entries), bytes_, owner_, name());
}

bool is_torch_file(const std::filesystem::path& file) {
  char magic[2] = {};
  std::ifstream(file, std::ios::binary).read(magic, sizeof(magic));
  return magic[0] == 'P' && magic[1] == 'K';
}

}  // namespace awq
