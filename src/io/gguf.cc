#include "io/gguf.h"

#include <array>
#include <bit>
#include <cstring>
#include <optional>

#include "base/numeric.h"

namespace awq {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF is read as it lies in memory");

constexpr uint32_t kMagic = 0x46554747;               // "GGUF"
constexpr int kMaxArrayDepth = 4;                     // of arrays in arrays; real files do not nest at all
constexpr uint64_t kMaxName = 65535;                  // the format's limit for keys
constexpr uint64_t kMaxElements = uint64_t(1) << 48;  // of a tensor: no file is near, and no product of sizes overflows
constexpr uint64_t kMinEntry = 8 + 4 + 1, kMinTensor = 8 + 4 + 8 + 4 + 8;  // bytes of the shortest table entries

struct TypeInfo {
  std::string_view name;
  uint64_t size;  // 0: varies
};
constexpr TypeInfo kMetadataTypes[] = {{"u8", 1},  {"i8", 1},  {"u16", 2},     {"i16", 2},    {"u32", 4},
                                       {"i32", 4}, {"f32", 4}, {"boolean", 1}, {"string", 0}, {"array", 0},
                                       {"u64", 8}, {"i64", 8}, {"f64", 8}};
const TypeInfo& info(GgufType t) { return kMetadataTypes[size_t(t)]; }

std::string describe(const GgufValue& v) {
  if (v.type != GgufType::array) return std::string(info(v.type).name);
  return fmt::format("an array of {} {}", v.count, info(v.element).name);
}

template <class T>
T load(const std::byte* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

/// Walks a file front to back. Every read is checked against what is left, so no sum of sizes can overflow.
class Cursor {
 public:
  Cursor(const std::filesystem::path& path, std::span<const std::byte> bytes) : path_(path), bytes_(bytes) {}
  uint64_t at() const { return at_; }
  uint64_t left() const { return bytes_.size() - at_; }

  std::span<const std::byte> take(uint64_t n, std::string_view what) {
    if (n > left())
      stop("{} needs {} bytes at offset {}, but only {} are left; the file is cut off or damaged", what, n, at_,
           left());
    const auto part = bytes_.subspan(at_, n);
    at_ += n;
    return part;
  }
  template <class T>
  T number(std::string_view what) {
    return load<T>(take(sizeof(T), what).data());
  }
  std::string_view string(std::string_view what, uint64_t limit) {
    const auto n = number<uint64_t>(what);
    if (n > limit) stop("{} of {} bytes at offset {} (limit {}); the file is damaged", what, n, at_, limit);
    const auto part = take(n, what);
    return {reinterpret_cast<const char*>(part.data()), part.size()};
  }
  /// A number of table entries of at least `smallest` bytes each.
  uint64_t count(uint64_t n, uint64_t smallest, std::string_view what) const {
    if (n > left() / smallest)
      stop("{} {} cannot fit in the {} bytes that are left; the file is cut off or damaged", n, what, left());
    return n;
  }
  template <class... Args>
  [[noreturn]] void stop(fmt::format_string<Args...> format, Args&&... args) const {
    fail("gguf", "{}: {}", path_.string(), fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  const std::filesystem::path& path_;
  std::span<const std::byte> bytes_;
  uint64_t at_ = 0;
};

GgufType read_type(Cursor& c) {
  const auto t = c.number<uint32_t>("a metadata type");
  if (t >= std::size(kMetadataTypes))
    c.stop("metadata type {} at offset {} does not exist (0 to {})", t, c.at() - 4, std::size(kMetadataTypes) - 1);
  return GgufType(t);
}

void skip_values(Cursor& c, GgufType type, uint64_t count, int depth);

GgufValue read_array(Cursor& c, int depth) {
  if (depth > kMaxArrayDepth) c.stop("arrays are nested more than {} deep at offset {}", kMaxArrayDepth, c.at());
  const GgufType element = read_type(c);
  const auto count = c.number<uint64_t>("an array's length");
  const uint64_t begin = c.at();
  Cursor walk = c;
  skip_values(walk, element, count, depth);
  return {GgufType::array, element, count, c.take(walk.at() - begin, "an array")};
}

/// Moves past `count` values, checking every size in them.
void skip_values(Cursor& c, GgufType type, uint64_t count, int depth) {
  if (const uint64_t size = info(type).size) {
    c.take(c.count(count, size, "numbers") * size, "an array");
  } else if (type == GgufType::string) {
    c.count(count, 8, "strings");
    for (uint64_t i = 0; i < count; ++i) c.string("a string", c.left());
  } else {
    c.count(count, 12, "arrays");
    for (uint64_t i = 0; i < count; ++i) read_array(c, depth + 1);
  }
}

GgufValue read_value(Cursor& c) {
  const GgufType type = read_type(c);
  if (type == GgufType::array) return read_array(c, 1);
  Cursor walk = c;
  skip_values(walk, type, 1, 1);
  return {type, type, 1, c.take(walk.at() - c.at(), "a value")};
}

struct Header {
  uint64_t tensors, entries;
};

Header read_header(Cursor& c) {
  if (const auto magic = c.number<uint32_t>("the header"); magic != kMagic)
    c.stop("not a GGUF file: it begins with {:#010x}, expected \"GGUF\"", magic);
  const auto version = c.number<uint32_t>("the header");
  if (version == 0x02000000 || version == 0x03000000)
    c.stop("a big-endian GGUF file; convert it again for this machine");
  if (version != 2 && version != 3)
    c.stop("GGUF version {}; versions 2 and 3 are supported. Convert the model again with a newer tool", version);
  const auto tensors = c.number<uint64_t>("the header"), entries = c.number<uint64_t>("the header");
  return {c.count(tensors, kMinTensor, "tensors"), c.count(entries, kMinEntry, "metadata entries")};
}

std::map<std::string_view, GgufValue> read_metadata(Cursor& c, uint64_t entries) {
  std::map<std::string_view, GgufValue> metadata;
  for (uint64_t i = 0; i < entries; ++i) {
    const std::string_view key = c.string("a metadata key", kMaxName);
    if (!metadata.emplace(key, read_value(c)).second) c.stop("the metadata key \"{}\" appears twice", key);
  }
  return metadata;
}

Shape read_shape(Cursor& c, std::string_view name) {
  const auto rank = c.number<uint32_t>("a tensor's rank");
  if (rank < 1 || rank > 4) c.stop("{}: {} dimensions; 1 to 4 are possible", name, rank);
  std::array<int64_t, 4> dims{};
  uint64_t elements = 1;
  for (uint32_t i = 0; i < rank; ++i) {  // the file has the fastest one first
    const auto d = c.number<uint64_t>("a tensor's size");
    if (d < 1 || d > kMaxElements / elements)
      c.stop("{}: a dimension of {} in a tensor of at most {} values; the file is damaged", name, d, kMaxElements);
    elements *= d;
    dims[rank - 1 - i] = int64_t(d);
  }
  return Shape(std::span<const int64_t>(dims.data(), rank));
}

const GgmlType& read_storage(Cursor& c, std::string_view name) {
  const auto id = c.number<uint32_t>("a tensor's type");
  const GgmlType* type = find_ggml_type(id);
  if (!type) c.stop("{}: tensor type {} is not known; this version reads {}", name, id, readable_ggml_types());
  return *type;
}

uint64_t stored_bytes(const Cursor& c, const GgufTensor& t) {
  const int64_t row = t.shape[-1];
  if (row % t.type->length)
    c.stop("{}: rows of {} values cannot be {}, whose blocks have {}", t.name, row, t.type->name, t.type->length);
  return uint64_t(t.shape.elements() / t.type->length * t.type->bytes);
}

struct Entry {
  GgufTensor tensor;
  uint64_t offset, bytes;  // from the start of the data
};

Entry read_tensor(Cursor& c, uint64_t alignment) {
  Entry e{{c.string("a tensor name", kMaxName), nullptr, {}, {}}, 0, 0};
  e.tensor.shape = read_shape(c, e.tensor.name);
  e.tensor.type = &read_storage(c, e.tensor.name);
  e.bytes = stored_bytes(c, e.tensor);
  e.offset = c.number<uint64_t>("a tensor's offset");
  if (e.offset % alignment)
    c.stop("{}: offset {} is no multiple of the file's alignment {}", e.tensor.name, e.offset, alignment);
  return e;
}

/// Data of all tensors: what follows the table, after padding.
std::span<const std::byte> data_after(Cursor& c, uint64_t alignment) {
  const uint64_t padding = (alignment - c.at() % alignment) % alignment;
  c.take(std::min(padding, c.left()), "padding");
  return c.take(c.left(), "data");
}

void place(const Cursor& c, Entry& e, std::span<const std::byte> data) {
  if (e.bytes > data.size() || e.offset > data.size() - e.bytes)
    c.stop(
        "{}: {} {} takes {} bytes at offset {} of the data, but there are {}; the file is cut off or damaged: fetch it "
        "again",
        e.tensor.name, e.tensor.type->name, e.tensor.shape.text(), e.bytes, e.offset, data.size());
  e.tensor.data = data.subspan(e.offset, e.bytes);
}

/// An integer of any width, or a boolean.
std::optional<int64_t> integer_at(const std::byte* p, GgufType type) {
  switch (type) {
    case GgufType::u8:
    case GgufType::boolean:
      return load<uint8_t>(p);
    case GgufType::i8:
      return load<int8_t>(p);
    case GgufType::u16:
      return load<uint16_t>(p);
    case GgufType::i16:
      return load<int16_t>(p);
    case GgufType::u32:
      return load<uint32_t>(p);
    case GgufType::i32:
      return load<int32_t>(p);
    case GgufType::i64:
      return load<int64_t>(p);
    case GgufType::u64:
      if (load<uint64_t>(p) <= uint64_t(INT64_MAX)) return int64_t(load<uint64_t>(p));
      return {};
    default:
      return {};
  }
}

[[noreturn]] void wrong_type(const std::filesystem::path& path, std::string_view key, std::string_view expected,
                             const GgufValue& got) {
  fail("gguf", "{}: the metadata \"{}\" should be {}, but is {}", path.string(), key, expected, describe(got));
}

Shape with_rows(const Shape& s, int64_t rows) {
  std::array<int64_t, 4> dims{rows};
  for (int i = 1; i < s.rank(); ++i) dims[size_t(i)] = s[i];
  return Shape(std::span<const int64_t>(dims.data(), size_t(s.rank())));
}

Tensor dequantized(const GgufTensor& t, const std::byte* blocks, const Shape& shape) {
  Tensor out = Tensor::empty(shape, DType::f32);
  t.type->dequantize(blocks, shape.elements() / t.type->length, out.as<float>().data());
  return out;
}

DType shared_dtype(std::string_view name) {
  return name == "F32" ? DType::f32 : name == "F16" ? DType::f16 : DType::bf16;
}

}  // namespace

Gguf::Gguf(const MappedFile& file) : Gguf(file.path(), file.bytes(), file.owner()) {}

Gguf::Gguf(std::filesystem::path path, std::span<const std::byte> bytes, std::shared_ptr<const void> owner)
    : path_(std::move(path)), owner_(std::move(owner)) {
  Cursor c(path_, bytes);
  const Header header = read_header(c);
  metadata_ = read_metadata(c, header.entries);
  if (const int64_t parts = integer("split.count", 1); parts > 1)
    c.stop("one of {} parts of a split model; join them first (llama-gguf-split --merge)", parts);
  const int64_t alignment = integer("general.alignment", 32);
  if (alignment < 8 || !std::has_single_bit(uint64_t(alignment)))
    c.stop("general.alignment is {}; expected a power of two, at least 8", alignment);
  c.count(header.tensors, kMinTensor, "tensors");
  std::vector<Entry> entries;
  for (uint64_t i = 0; i < header.tensors; ++i) entries.push_back(read_tensor(c, uint64_t(alignment)));
  const auto data = data_after(c, uint64_t(alignment));
  for (Entry& e : entries) {
    place(c, e, data);
    tensors_.push_back(e.tensor);
  }
  for (size_t i = 0; i < tensors_.size(); ++i)
    if (!index_.emplace(tensors_[i].name, i).second) c.stop("the tensor {} appears twice", tensors_[i].name);
}

const GgufValue& Gguf::value(std::string_view key) const {
  const auto it = metadata_.find(key);
  if (it == metadata_.end())
    fail("gguf", "{}: the metadata has no \"{}\"; the file is incomplete or not a language model", path_.string(), key);
  return it->second;
}

int64_t Gguf::integer(std::string_view key) const {
  const GgufValue& v = value(key);
  if (v.type != GgufType::boolean)
    if (const auto n = integer_at(v.data.data(), v.type)) return *n;
  wrong_type(path_, key, "an integer below 2^63", v);
}

double Gguf::number(std::string_view key) const {
  const GgufValue& v = value(key);
  if (v.type == GgufType::f32) return load<float>(v.data.data());
  if (v.type == GgufType::f64) return load<double>(v.data.data());
  wrong_type(path_, key, "f32 or f64", v);
}

bool Gguf::flag(std::string_view key) const {
  const GgufValue& v = value(key);
  if (v.type != GgufType::boolean) wrong_type(path_, key, "a boolean", v);
  return load<uint8_t>(v.data.data()) != 0;
}

std::string_view Gguf::text(std::string_view key) const {
  const GgufValue& v = value(key);
  if (v.type != GgufType::string) wrong_type(path_, key, "a string", v);
  return Cursor(path_, v.data).string("a string", v.data.size());
}

std::vector<std::string_view> Gguf::texts(std::string_view key) const {
  const GgufValue& v = value(key);
  if (v.type != GgufType::array || v.element != GgufType::string) wrong_type(path_, key, "an array of strings", v);
  Cursor c(path_, v.data);
  std::vector<std::string_view> items(v.count);
  for (std::string_view& s : items) s = c.string("a string", v.data.size());
  return items;
}

std::vector<float> Gguf::numbers(std::string_view key) const {
  const GgufValue& v = value(key);
  if (v.type != GgufType::array || v.element != GgufType::f32) wrong_type(path_, key, "an array of f32", v);
  std::vector<float> items(v.count);
  if (v.count) std::memcpy(items.data(), v.data.data(), v.data.size());
  return items;
}

std::vector<int64_t> Gguf::integers(std::string_view key) const {
  const GgufValue& v = value(key);
  const uint64_t size = info(v.element).size;
  if (v.type != GgufType::array || !size) wrong_type(path_, key, "an array of integers", v);
  std::vector<int64_t> items;
  for (uint64_t i = 0; i < v.count; ++i) {
    const auto n = integer_at(v.data.data() + i * size, v.element);
    if (!n) wrong_type(path_, key, "an array of integers", v);
    items.push_back(*n);
  }
  return items;
}

const GgufTensor* Gguf::find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

const GgufTensor& Gguf::at(std::string_view name) const {
  if (const GgufTensor* t = find(name)) return *t;
  fail("gguf", "{}: the tensor {} is missing; the file is incomplete or of another architecture", path_.string(), name);
}

void Gguf::require_readable(const GgufTensor& t) const {
  if (!t.type->dequantize)
    fail("gguf", "{}: {} is stored as {}; this version reads {}", path_.string(), t.name, t.type->name,
         readable_ggml_types());
}

Tensor Gguf::tensor(const GgufTensor& t) const {
  require_readable(t);
  if (t.type->length == 1) return Tensor::wrap(t.data.data(), t.shape, shared_dtype(t.type->name), owner_);
  return dequantized(t, t.data.data(), t.shape);
}

std::span<const std::byte> Gguf::row_bytes(const GgufTensor& t, int64_t begin, int64_t end) const {
  require_readable(t);
  const int64_t row = t.shape.elements() / t.shape[0];
  if (begin < 0 || begin > end || end > t.shape[0] || row % t.type->length)
    fail("gguf", "{}: rows {} to {} of {} {} {}", path_.string(), begin, end, t.name, t.type->name, t.shape.text());
  const int64_t bytes = row / t.type->length * t.type->bytes;
  return t.data.subspan(size_t(begin * bytes), size_t((end - begin) * bytes));
}

Tensor Gguf::blocks(const GgufTensor& t, int64_t begin, int64_t end) const {
  const auto part = row_bytes(t, begin, end);
  Tensor copy = Tensor::empty({int64_t(part.size())}, DType::u8);
  read_part(part, owner_, copy.data());
  return copy;
}

Tensor Gguf::rows(const GgufTensor& t, int64_t begin, int64_t end) const {
  const Shape shape = with_rows(t.shape, end - begin);
  if (t.type->length > 1) return dequantized(t, blocks(t, begin, end).data(), shape);
  const auto part = row_bytes(t, begin, end);
  Tensor copy = Tensor::empty(shape, shared_dtype(t.type->name));
  read_part(part, owner_, copy.data());
  return copy;
}

}  // namespace awq
