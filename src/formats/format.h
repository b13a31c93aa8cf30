#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/file.h"
#include "model/spec.h"
#include "quant/pieces.h"

namespace awq {

/// A file that travels with the weights: tokenizer, chat template, licence. Either bytes or a file to copy.
struct SideFile {
  std::string name;   // "tokenizer.json"; no directories
  std::string bytes;  // used when `path` is empty
  std::filesystem::path path;
};

/// What becomes of a tensor of a file.
enum class TensorUse : uint8_t {
  quantized,  // codes of a matrix, or their scales, zero points, order
  floats,     // a matrix of the blocks that is not rounded, but could be
  carried,    // never rounded unless asked for: embedding, head, norms, biases, routers
  dropped     // no parameter is made of it
};
std::string_view name_of(TensorUse use);  // "quantized", "float", "carried", "dropped"

struct TensorInfo {
  std::string name;  // as the file spells it
  std::string type;  // "BF16", "Q4_K"
  Shape shape;
  uint64_t bytes = 0;
  TensorUse use = TensorUse::carried;
  std::string reason{};  // why it is dropped
};

/// A model on disk, opened without reading its weights. Files are memory-mapped; every name, type and shape has been
/// checked against the spec when `open` returns. Whatever the file format, the outside looks like a Hugging Face
/// folder: config(), side_files() and Hugging Face's row order of q and k. Safe to read from several threads.
class Checkpoint {
 public:
  /// Tries each format. Throws Error if the path is missing or no format knows it.
  static std::unique_ptr<Checkpoint> open(const std::filesystem::path& path);
  virtual ~Checkpoint() = default;
  virtual std::string_view format() const = 0;       // "hf", "gguf", "autoawq", ...
  virtual const nlohmann::json& config() const = 0;  // Hugging Face's config.json
  virtual const ModelSpec& spec() const = 0;
  /// What errors call the place that config() was read from: "DIR/config.json".
  virtual std::string described_in() const = 0;
  /// A float matrix or norm (f32, f16 or bf16; the embedding always, and block formats, are de-quantized to f32), or a
  /// quantized matrix. block is -1 for embed, final_norm and head. With tied embeddings head is not asked for.
  virtual Weight weight(int block, Param param) const = 0;
  /// The same matrix as it is stored, in pieces, each in memory of its own; for as long as the checkpoint lives.
  /// Without an override they are parts of the whole matrix, which is read at once.
  virtual Pieces pieces(int block, Param param) const { return pieces_of(weight(block, param)); }
  /// What a matrix is quantized from: the same, or floats where the format packs values that count as an original.
  virtual Pieces float_pieces(int block, Param param) const { return pieces(block, param); }
  /// The bias [rows] as f32, for parameters whose spec has one.
  virtual Tensor bias(int block, Param param) const = 0;
  /// A tensor of spec().carried, as the file has it.
  virtual Tensor carried(const std::string& name) const;
  virtual std::vector<TensorInfo> tensors() const = 0;
  /// Everything but weights and config.json: tokenizer.json, tokenizer_config.json, chat_template.jinja,
  /// generation_config.json, licences. A GGUF's metadata is converted.
  virtual std::vector<SideFile> side_files() const = 0;
  /// What lies beside the model and is in neither: weights in other formats, folders ("onnx/").
  virtual std::vector<std::string> left_out() const { return {}; }
  /// The files that hold the weights.
  virtual std::vector<std::filesystem::path> weight_files() const { return {}; }
};

/// What the weight of a parameter is in the files of a model; its bias is carried.
TensorUse use_of(const Checkpoint& model, int block, Param param);

/// A side file's text, or an empty string where there is none.
std::string read_side_file(const Checkpoint& model, std::string_view name);

/// Receives side files, then a model parameter by parameter, in any order of the caller's that is always the same, and
/// writes shards as it goes, so that peak memory is one shard. Nothing exists under the final name before `finish`
/// returns.
class CheckpointSink {
 public:
  virtual ~CheckpointSink() = default;
  virtual void put(int block, Param param, const Weight& w) = 0;
  virtual void put_bias(int block, Param param, const Tensor& b) = 0;
  /// A tensor of the spec's `carried`, under its own name. Throws Error where the format has no place for any.
  virtual void put_carried(const std::string& name, const Tensor& t);
  virtual void put_side_file(const SideFile& file) = 0;
  /// Throws Error where the side files cannot be held: called between them and the first put, or `resume`.
  virtual void begin() {}
  virtual void finish() = 0;
  /// All that a later process needs to go on after the last put, once this one has called `sync`: its sink of the same
  /// place, which must outlive a process, is given side files again, then the state.
  virtual nlohmann::json state() const = 0;
  virtual void resume(const nlohmann::json& state) = 0;  // throws Error where the files do not fit it
  virtual void sync() = 0;                               // what was put is on the disk
};

/// Puts all that the source's spec says is carried.
void put_carried(const Checkpoint& source, CheckpointSink& sink);

struct Capacity;

struct Format {
  std::string_view name;  // as accepted by --format
  bool (*detect)(const std::filesystem::path& path);
  std::unique_ptr<Checkpoint> (*open)(const std::filesystem::path& path);
  /// Null where the format is only read. `config` is the source's config.json.
  std::unique_ptr<CheckpointSink> (*create)(const OutputPlace& place, const nlohmann::json& config,
                                            const ModelSpec& spec, const QuantSpec& quant);
  const Capacity* holds = nullptr;  // of packed_sink.h; null: floats
  /// What it has in place of a matrix in floats, be it one of the blocks or the embedding or head; null: the same.
  Weight (*round)(const Tensor& matrix, bool outer, const std::string& name) = nullptr;
};
/// Throws Error, in the name of `operation`, unless codes are of 2, 3, 4 or 8 bits and the format holds them.
void require_bits(const Format& format, int bits, std::string_view operation);
const Format& find_format(std::string_view name);  // one that can be written; throws Error, listing them
std::span<const Format> formats();                 // see formats.cc

}  // namespace awq
