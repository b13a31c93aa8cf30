#include "io/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/check.h"
#include "io/json.h"

namespace awq {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little, "safetensors is little-endian and read in place");

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeader = 100'000'000;  // the reference implementation's limit
constexpr std::string_view kSingle = "model.safetensors";
constexpr std::string_view kIndex = "model.safetensors.index.json";

std::optional<DType> dtype_of(std::string_view type) {
  using enum DType;
  for (DType t : {f32, f16, bf16, i64, i32, i16, i8, u8, u32, f8_e4m3})
    if (name_of(t) == type) return t;
  return std::nullopt;
}

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

uint64_t header_length(std::span<const std::byte> file, const std::string& name) {
  if (text_of(file).starts_with("version https://git-lfs"))
    fail("open", "{}: this is a Git LFS pointer, not the file itself; fetch it with: git lfs pull", name);
  if (file.size() < kLengthBytes)
    fail("open", "{}: {} bytes are no safetensors file; perhaps a download was cut off: fetch it again", name,
         file.size());
  uint64_t length = 0;
  std::memcpy(&length, file.data(), kLengthBytes);
  if (length > kMaxHeader)
    fail("open", "{}: a header of {} bytes (at most {} are allowed); is it a safetensors file?", name, length,
         kMaxHeader);
  if (length > file.size() - kLengthBytes)
    fail("open", "{}: a header of {} bytes in a file of {}; perhaps a download was cut off: fetch it again", name,
         length, file.size());
  return length;
}

/// Reads one file's header; `where_` names the file, and the tensor once one is read.
class HeaderReader {
 public:
  HeaderReader(const std::string& file, uint64_t data_bytes) : where_(file), data_bytes_(data_bytes) {}

  SafetensorsEntry entry(const std::string& name, const Json& j) {
    where_ += ": tensor " + shown(name);
    if (!j.is_object() || j.size() != 3) bad("has no dtype, shape and data_offsets", j);
    SafetensorsEntry e;
    e.type = member(j, "dtype", Json::value_t::string).get<std::string>();
    e.dtype = dtype_of(e.type);
    e.shape = shape(member(j, "shape", Json::value_t::array));
    read_range(member(j, "data_offsets", Json::value_t::array), e);
    if (e.dtype) check_length(e);
    return e;
  }

 private:
  [[noreturn]] void bad(std::string_view what, const Json& got) const {
    fail("open", "{} {}: {}; the file is damaged", where_, what, shown(got));
  }
  const Json& member(const Json& j, const char* key, Json::value_t type) const {
    const auto it = j.find(key);
    if (it == j.end() || it->type() != type) bad(fmt::format("has no valid {}", key), j);
    return *it;
  }
  int64_t size(const Json& j) const {
    if (!j.is_number_unsigned() || j.get<uint64_t>() > uint64_t(INT64_MAX)) bad("has an impossible size", j);
    return j.get<int64_t>();
  }
  Shape shape(const Json& j) const {
    std::vector<int64_t> dims;
    for (const Json& d : j) dims.push_back(size(d));
    try {
      return Shape(dims);
    } catch (const Error&) {
      bad("has a shape of more than 5 dimensions or 2^63 elements", j);
    }
  }
  void read_range(const Json& j, SafetensorsEntry& e) const {
    if (j.size() != 2) bad("has no valid data_offsets", j);
    e.begin = uint64_t(size(j[0]));
    e.end = uint64_t(size(j[1]));
    if (e.begin > e.end) bad("ends before it begins", j);
    if (e.end > data_bytes_)
      fail(
          "open",
          "{} should end at byte {} of the data, but there are only {}; perhaps a download was cut off: fetch it again",
          where_, e.end, data_bytes_);
  }
  void check_length(const SafetensorsEntry& e) const {
    const uint64_t bytes = e.end - e.begin, element = size_of(*e.dtype);
    if (bytes % element || bytes / element != uint64_t(e.shape.elements()))
      fail("open", "{} is {} {} in {} bytes, which is not its size; the file is damaged", where_, e.type,
           e.shape.text(), bytes);
  }

  std::string where_;
  uint64_t data_bytes_;
};

using Metadata = std::map<std::string, std::string, std::less<>>;

Metadata read_metadata(const Json& j, const std::string& file) {
  const auto is_text = [](const Json& v) { return v.is_string(); };
  if (!j.is_object() || !std::all_of(j.begin(), j.end(), is_text))
    fail("open", "{}: __metadata__ should map strings to strings, but is {}", file, shown(j));
  return j.get<Metadata>();
}

using Entries = SafetensorsFile::Entries;

/// As the reference implementation asks: sorted by offset, each range begins where the one before ended.
void check_tiling(const Entries& entries, uint64_t data_bytes, const std::string& file) {
  std::vector<const Entries::value_type*> sorted;
  for (const auto& e : entries) sorted.push_back(&e);
  std::ranges::sort(sorted, {}, [](const auto* e) { return std::pair(e->second.begin, e->second.end); });
  uint64_t end = 0;
  for (const auto* e : sorted) {
    if (e->second.begin != end)
      fail("open", "{}: tensor {} begins at byte {} of the data, but the one before it ends at {}; the file is damaged",
           file, shown(e->first), e->second.begin, end);
    end = e->second.end;
  }
  if (end != data_bytes)
    fail("open", "{}: the tensors end at byte {} of the data, but there are {}; the file is damaged", file, end,
         data_bytes);
}

Entries read_header(std::string_view text, uint64_t data_bytes, const std::string& file, Metadata& metadata) {
  const Json header = parse_json(text, file);
  if (!header.is_object()) fail("open", "{}: the header should be a JSON object, but is {}", file, shown(header));
  Entries entries;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__")
      metadata = read_metadata(value, file);
    else
      entries.emplace(name, HeaderReader(file, data_bytes).entry(name, value));
  }
  check_tiling(entries, data_bytes, file);
  return entries;
}

std::map<std::string, std::string> read_weight_map(const std::string& index) {
  const Json content = parse_json(read_text(index), index);
  const auto map = content.find("weight_map");
  if (!content.is_object() || map == content.end() || !map->is_object() || map->empty())
    fail("open", "{}: there is no \"weight_map\" that says which file holds which tensor", index);
  std::map<std::string, std::string> result;
  for (const auto& [name, file] : map->items()) {
    const std::string text = file.is_string() ? file.get<std::string>() : "";
    if (text.empty() || text == ".." || text.find_first_of(std::string_view("/\\\0", 3)) != text.npos)
      fail("open", "{}: {} should be in a file of the same folder, but is said to be in {}", index, shown(name),
           shown(file));
    result.emplace(name, text);
  }
  return result;
}

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

MappedFile map_shard(const fs::path& folder, const std::string& shard, const std::string& index) {
  if (!is_there(folder / shard))
    fail("open", "{}: the shard {} is missing; perhaps a download was cut off: fetch it again", index, shown(shard));
  return MappedFile(folder / shard);
}

bool readable_in_place(const std::byte* data, DType t) { return reinterpret_cast<uintptr_t>(data) % size_of(t) == 0; }

}  // namespace

SafetensorsFile::SafetensorsFile(std::span<const std::byte> bytes, std::shared_ptr<const void> owner, std::string name)
    : name_(std::move(name)), owner_(std::move(owner)) {
  const uint64_t length = header_length(bytes, name_);
  data_ = bytes.subspan(kLengthBytes + length);
  entries_ = read_header(text_of(bytes.subspan(kLengthBytes, length)), data_.size(), name_, metadata_);
}

const SafetensorsEntry& SafetensorsFile::readable(std::string_view name) const {
  const auto it = entries_.find(name);
  if (it == entries_.end()) fail("open", "{}: there is no tensor {}", name_, name);
  if (!it->second.dtype)
    fail("open", "{}: tensor {} is {}, which is not supported; convert it to F32, F16 or BF16", name_, name,
         shown(it->second.type));
  return it->second;
}

Tensor SafetensorsFile::tensor(std::string_view name) const {
  const SafetensorsEntry& e = readable(name);
  const std::byte* data = data_.data() + e.begin;
  if (readable_in_place(data, *e.dtype)) return Tensor::wrap(data, e.shape, *e.dtype, owner_);
  Tensor copy = Tensor::empty(e.shape, *e.dtype);
  std::memcpy(copy.data(), data, copy.bytes());
  return copy;
}

Tensor SafetensorsFile::rows(std::string_view name, int64_t begin, int64_t end) const {
  const SafetensorsEntry& e = readable(name);
  Shape flat = e.shape;
  if (flat.rank() == 3) flat = {flat[0] * flat[1], flat[2]};
  if (flat.rank() == 4) flat = {flat[0] * flat[1], flat[2], flat[3]};
  const Tensor part = Tensor::wrap(data_.data() + e.begin, flat, *e.dtype, nullptr).rows(begin, end);
  Tensor copy = Tensor::empty(part.shape(), *e.dtype);
  read_part({part.data(), part.bytes()}, owner_, copy.data());
  return copy;
}

bool SafetensorsFolder::exists(const fs::path& folder) {
  return is_there(folder / kSingle) || is_there(folder / kIndex);
}

SafetensorsFolder::SafetensorsFolder(const fs::path& folder) : folder_(folder.string()) {
  const std::string index = (folder / kIndex).string();
  std::map<std::string, std::string> weight_map;
  if (is_there(folder / kSingle)) {  // wins over an index, as in transformers
    files_.emplace_back(MappedFile(folder / kSingle));
  } else {
    weight_map = read_weight_map(index);
    std::set<std::string> shards;
    for (const auto& [name, shard] : weight_map) shards.insert(shard);
    for (const std::string& shard : shards) files_.emplace_back(map_shard(folder, shard, index));
  }
  for (size_t i = 0; i < files_.size(); ++i)
    for (const auto& [name, entry] : files_[i].entries())
      if (const auto [it, added] = where_.emplace(name, i); !added)
        fail("open", "{}: tensor {} is also in {}; the folder mixes two models", files_[i].name(), shown(name),
             files_[it->second].name());
  check_index(weight_map, index);
}

SafetensorsFolder::SafetensorsFolder(const fs::path& folder, SafetensorsFile file) : folder_(folder.string()) {
  for (const auto& [name, entry] : file.entries()) where_.emplace(name, 0);
  files_.push_back(std::move(file));
}

void SafetensorsFolder::check_index(const std::map<std::string, std::string>& weight_map,
                                    const std::string& index) const {
  for (const auto& [name, shard] : weight_map) {
    const SafetensorsFile* file = find(name);
    if (!file || fs::path(file->name()).filename() != shard)
      fail("open", "{}: tensor {} should be in {}, but is not; index and shards are not of the same model", index,
           shown(name), shard);
  }
}

const SafetensorsFile* SafetensorsFolder::find(std::string_view name) const {
  const auto it = where_.find(name);
  return it == where_.end() ? nullptr : &files_[it->second];
}

const SafetensorsFile& SafetensorsFolder::file_of(std::string_view name) const {
  const SafetensorsFile* file = find(name);
  if (!file) fail("open", "{}: there is no tensor {}", folder_, name);
  return *file;
}

namespace {

std::string header_begin(const SafetensorsWriter::Metadata& metadata) {
  return R"({"__metadata__":)" + Json(metadata).dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Data begins at a multiple of 64, so that a mapping is aligned for any vector unit.
uint64_t header_bytes(uint64_t room, const SafetensorsWriter::Metadata& metadata) {
  return (kLengthBytes + header_begin(metadata).size() + room + 1 + 63) / 64 * 64 - kLengthBytes;
}

}  // namespace

const SafetensorsWriter::Metadata SafetensorsWriter::kOfTorch = {{"format", "pt"}};

SafetensorsWriter::SafetensorsWriter(const fs::path& path, uint64_t header_room, const State& state,
                                     const Metadata& metadata)
    : header_bytes_(header_bytes(header_room, metadata)),
      file_(path, kLengthBytes + header_bytes_ + state.data_bytes),
      header_(state.header),
      data_bytes_(state.data_bytes) {}

SafetensorsWriter::SafetensorsWriter(const fs::path& path, uint64_t header_room, const Metadata& metadata)
    : header_bytes_(header_bytes(header_room, metadata)), file_(path), header_(header_begin(metadata)) {
  if (header_bytes_ > kMaxHeader)
    fail("write", "{}: a header of {} bytes is beyond the format's {}", path.string(), header_bytes_, kMaxHeader);
  file_.write(std::string(kLengthBytes + header_bytes_, ' '));
}

void SafetensorsWriter::put(std::string_view name, const Tensor& t) {
  std::string dims;
  for (int i = 0; i < t.shape().rank(); ++i) dims += (i ? "," : "") + std::to_string(t.shape()[i]);
  header_ += fmt::format(R"(,{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", Json(name).dump(),
                         name_of(t.dtype()), dims, data_bytes_, data_bytes_ + t.bytes());
  if (header_.size() + 1 > header_bytes_) fail("write", "tensor {}: the header has no room for it", name);
  file_.write(std::span(t.data(), t.bytes()));
  data_bytes_ += t.bytes();
}

void SafetensorsWriter::close() {
  std::string front(kLengthBytes, '\0');
  std::memcpy(front.data(), &header_bytes_, kLengthBytes);
  file_.overwrite(0, front + header_ + "}");  // the spaces after it are part of the header
  file_.close();
}

SafetensorsFolderWriter::SafetensorsFolderWriter(AtomicDir& dir, uint64_t header_room, uint64_t shard_bytes)
    : dir_(dir), header_room_(header_room), shard_bytes_(shard_bytes) {}

fs::path SafetensorsFolderWriter::temporary(size_t shard) const { return dir_.path(fmt::format("shard-{}", shard)); }

void SafetensorsFolderWriter::put(const std::string& name, const Tensor& t) {
  if (shard_ && shard_->data_bytes() > 0 && shard_->data_bytes() + t.bytes() > shard_bytes_) {
    shard_->close();
    shard_.reset();
  }
  if (!shard_) shard_ = std::make_unique<SafetensorsWriter>(temporary(++shards_), header_room_);
  if (!where_.emplace(name, shards_).second) fail("write", "tensor {} was written already", name);
  shard_->put(name, t);
  total_bytes_ += t.bytes();
}

std::string SafetensorsFolderWriter::final_name(size_t shard) const {
  return shards_ == 1 ? std::string(kSingle) : fmt::format("model-{:05}-of-{:05}.safetensors", shard, shards_);
}

void SafetensorsFolderWriter::sync() {
  if (shard_) shard_->sync();
}

Json SafetensorsFolderWriter::state() const {
  Json state = {{"shards", shards_}, {"total_bytes", total_bytes_}, {"where", where_}};
  if (shard_) state["shard"] = {{"header", shard_->state().header}, {"data_bytes", shard_->data_bytes()}};
  return state;
}

void SafetensorsFolderWriter::resume(const Json& state) {
  shards_ = state.at("shards");
  total_bytes_ = state.at("total_bytes");
  where_ = state.at("where").get<std::map<std::string, size_t>>();
  for (size_t i = 1; i <= shards_; ++i)  // a process that ended in `finish` has renamed some
    if (is_there(dir_.path(final_name(i)))) fs::rename(dir_.path(final_name(i)), temporary(i));
  if (const auto it = state.find("shard"); it != state.end())
    shard_ = std::make_unique<SafetensorsWriter>(temporary(shards_), header_room_,
                                                 SafetensorsWriter::State{it->at("header"), it->at("data_bytes")});
}

void SafetensorsFolderWriter::finish() {
  if (!shard_) fail("write", "a model without a tensor cannot be written");
  shard_->close();
  for (size_t i = 1; i <= shards_; ++i) fs::rename(temporary(i), dir_.path(final_name(i)));
  if (shards_ == 1) return;
  Json index = {{"metadata", {{"total_size", total_bytes_}}}};
  for (const auto& [name, shard] : where_) index["weight_map"][name] = final_name(shard);
  dir_.write(kIndex, index.dump(2) + "\n");
}

}  // namespace awq
