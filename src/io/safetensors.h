#pragma once
// The safetensors format: 8 bytes of header length, a JSON header, then the tensors' bytes without gaps.
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/file.h"
#include "tensor/tensor.h"

namespace awq {

/// A tensor as the header describes it.
struct SafetensorsEntry {
  std::string type;            // as the file spells it: "BF16", or one that we cannot read, "F8_E4M3"
  std::optional<DType> dtype;  // absent where we cannot read it
  Shape shape;
  uint64_t begin = 0, end = 0;  // bytes, from the end of the header
};

/// One file. The constructor checks the whole header: every range lies within the file, has the length that its shape
/// and type ask for, and the ranges tile the file. Safe to read from several threads.
class SafetensorsFile {
 public:
  using Entries = std::map<std::string, SafetensorsEntry, std::less<>>;
  explicit SafetensorsFile(const MappedFile& file)
      : SafetensorsFile(file.bytes(), file.owner(), file.path().string()) {}
  /// From memory; `owner` keeps it alive and `name` stands for the path in errors.
  SafetensorsFile(std::span<const std::byte> bytes, std::shared_ptr<const void> owner, std::string name);
  /// Tensors in a file of another kind: of known types, each within `bytes`.
  SafetensorsFile(Entries entries, std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                  std::string name)
      : name_(std::move(name)), owner_(std::move(owner)), data_(bytes), entries_(std::move(entries)) {}

  const std::string& name() const { return name_; }
  const Entries& entries() const { return entries_; }
  const std::map<std::string, std::string, std::less<>>& metadata() const { return metadata_; }
  /// Shares the mapping, or copies where the file has the tensor at an address that its type cannot be read from.
  /// Throws Error if it is absent or of a type that we cannot read.
  Tensor tensor(std::string_view name) const;
  /// A copy of rows [begin, end) of the outermost dimension, of more than two dimensions of the outer two, see
  /// read_part.
  Tensor rows(std::string_view name, int64_t begin, int64_t end) const;

 private:
  const SafetensorsEntry& readable(std::string_view name) const;

  std::string name_;
  std::shared_ptr<const void> owner_;
  std::span<const std::byte> data_;
  Entries entries_;
  std::map<std::string, std::string, std::less<>> metadata_;
};

/// The files of a folder: model.safetensors or else the shards that model.safetensors.index.json lists. No name is in
/// two shards, and every name of the index is in the shard it says. Safe to read from several threads.
class SafetensorsFolder {
 public:
  static bool exists(const std::filesystem::path& folder);
  explicit SafetensorsFolder(const std::filesystem::path& folder);
  /// One file that stands for them.
  SafetensorsFolder(const std::filesystem::path& folder, SafetensorsFile file);
  const std::vector<SafetensorsFile>& files() const { return files_; }
  /// The file that holds the tensor; null where none does.
  const SafetensorsFile* find(std::string_view name) const;
  Tensor tensor(std::string_view name) const { return file_of(name).tensor(name); }
  Tensor rows(std::string_view name, int64_t begin, int64_t end) const { return file_of(name).rows(name, begin, end); }

 private:
  const SafetensorsFile& file_of(std::string_view name) const;  // throws Error where none has it
  void check_index(const std::map<std::string, std::string>& weight_map, const std::string& index) const;

  std::string folder_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, size_t, std::less<>> where_;
};

/// Writes a file tensor by tensor and keeps none of them: room for the header is left at the front and filled by
/// `close`. The same tensors in the same order give the same bytes.
class SafetensorsWriter {
 public:
  using Metadata = std::map<std::string, std::string>;
  static const Metadata kOfTorch;  // what every other program expects
  /// Header room that one tensor may need.
  static uint64_t room_for(std::string_view name) { return name.size() + 192; }
  /// `header_room`: the sum of room_for over all tensors that will come.
  SafetensorsWriter(const std::filesystem::path& path, uint64_t header_room, const Metadata& metadata = kOfTorch);
  /// Goes on with a file that an earlier process has begun with the same room and metadata, from the `state()` that it
  /// had then; what followed is cut off. Throws Error if the file is shorter.
  struct State {
    std::string header;
    uint64_t data_bytes = 0;
  };
  SafetensorsWriter(const std::filesystem::path& path, uint64_t header_room, const State& state,
                    const Metadata& metadata = kOfTorch);
  State state() const { return {header_, data_bytes_}; }
  void sync() { file_.sync(); }
  void put(std::string_view name, const Tensor& t);  // throws Error if the header room is used up
  uint64_t data_bytes() const { return data_bytes_; }
  void close();

 private:
  uint64_t header_bytes_;
  OutputFile file_;
  std::string header_;
  uint64_t data_bytes_ = 0;
};

/// Writes model.safetensors, or shards and their index where the tensors exceed `shard_bytes`, into a folder.
class SafetensorsFolderWriter {
 public:
  SafetensorsFolderWriter(AtomicDir& dir, uint64_t header_room, uint64_t shard_bytes);
  void put(const std::string& name, const Tensor& t);  // throws Error if the name was put before
  void finish();
  /// What a later process needs, beside the folder, to go on after what has been put; and how it does.
  nlohmann::json state() const;
  void resume(const nlohmann::json& state);
  void sync();  // what was put is on the disk

 private:
  std::filesystem::path temporary(size_t shard) const;
  std::string final_name(size_t shard) const;

  AtomicDir& dir_;
  uint64_t header_room_, shard_bytes_;
  std::unique_ptr<SafetensorsWriter> shard_;
  size_t shards_ = 0;
  uint64_t total_bytes_ = 0;
  std::map<std::string, size_t> where_;
};

}  // namespace awq
