#pragma once
// What Hugging Face folders have in common, whatever their matrices look like.
#include <initializer_list>
#include <set>

#include "formats/format.h"
#include "formats/stored.h"
#include "io/safetensors.h"

namespace awq {

/// A folder of config.json, safetensors (or one torch_file) and side files. A format derives from it, checks in its
/// constructor that the files hold exactly the tensors it knows, and overrides `weight` and `pieces` where matrices are
/// not plain tensors.
class FolderCheckpoint : public Checkpoint {
 public:
  const nlohmann::json& config() const override { return config_; }
  const ModelSpec& spec() const override { return spec_; }
  std::string described_in() const override { return (folder_ / "config.json").string(); }
  Weight weight(int block, Param param) const override;
  Pieces pieces(int block, Param param) const override;
  Tensor bias(int block, Param param) const override;
  Tensor carried(const std::string& name) const override;
  std::vector<TensorInfo> tensors() const override;
  /// Every regular file of the folder but config.json, the weights in whatever format and what describes them
  /// (*.index.json, quant_config.json): beside new weights they would be wrong. Pickles (.bin, .pt, .pth, .ckpt, .pkl)
  /// are never carried along: reading one runs code. Sorted by name.
  std::vector<SideFile> side_files() const override;
  std::vector<std::string> left_out() const override;
  std::vector<std::filesystem::path> weight_files() const override;

 protected:
  FolderCheckpoint(const std::filesystem::path& folder, nlohmann::json config, Experts experts = Experts::as_published);
  const StoredTensors& stored() const { return stored_; }
  /// The tensor's name in these files, less ".weight": "model.layers.3.mlp.up_proj".
  std::string name(const StoredTensor& t) const;
  std::string weight_name(const StoredTensor& t) const {
    return t.weight_name.empty() ? name(t) + ".weight" : t.weight_name;
  }
  /// Of its bias, by the file: of stacked experts [stack, rows].
  static Shape bias_shape(const StoredTensor& t) { return t.stack ? Shape{t.stack, t.rows / t.stack} : Shape{t.rows}; }
  std::string bias_name(const StoredTensor& t) const { return t.bias_name.empty() ? name(t) + ".bias" : t.bias_name; }
  const SafetensorsFolder& files() const { return files_; }
  const std::filesystem::path& folder() const { return folder_; }
  /// Why a tensor that stands beside a parameter's is not read; empty where it is.
  virtual std::string why_unused(std::string_view) const { return ""; }

 private:
  const SafetensorsEntry& entry(const std::string& tensor) const {
    return files_.find(tensor)->entries().find(tensor)->second;
  }
  /// Rows [begin, end) of a parameter's tensor, in memory of their own: a fault maps up to 2 MB around it, which what
  /// is small and converted at once must not keep.
  Tensor rows(const StoredTensor& t, const std::string& tensor, const RowPattern& p, int64_t begin, int64_t end) const;

  /// Of an expert whose matrix is stored [in, out] in a tensor of all.
  Tensor expert_rows(const StoredTensor& t, const std::string& tensor, RowPattern p, int64_t begin, int64_t end) const;

  std::string why_dropped(std::string_view tensor) const;  // one that TensorCheck let pass though nothing required it

  std::filesystem::path folder_;
  nlohmann::json config_;
  ModelSpec spec_;  // what config.json says, then what the files do
  SafetensorsFolder files_;
  StoredTensors stored_;
};

/// Compares the tensors of a folder with those that a model has.
class TensorCheck {
 public:
  static constexpr std::initializer_list<DType> kFloats = {DType::f32, DType::f16, DType::bf16};
  TensorCheck(const std::filesystem::path& folder, const ModelSpec& spec, const SafetensorsFolder& files)
      : folder_(folder.string()), spec_(spec), files_(files) {}
  /// Throws Error if the tensor is absent, of another shape or of none of these types.
  void require(const std::string& name, const Shape& shape, std::initializer_list<DType> types = kFloats);
  /// Throws Error if the files hold tensors that nothing required and that are known to mean something.
  void no_others() const;

 private:
  bool harmless(std::string_view name) const;

  std::string folder_;
  const ModelSpec& spec_;
  const SafetensorsFolder& files_;
  std::set<std::string, std::less<>> required_;
};

/// The only .pt file that torch.save has written into a folder without safetensors: llm-awq's model. Empty where there
/// is none, or several.
std::filesystem::path torch_file(const std::filesystem::path& folder);
/// Of the architecture that the config names. Throws Error, naming the folder's file.
ModelSpec parse_spec(const nlohmann::json& config, const std::filesystem::path& folder);
nlohmann::json read_config(const std::filesystem::path& folder);  // an object; throws Error otherwise

/// Writes such a folder. A format derives from it and says how a weight becomes tensors.
class FolderSink : public CheckpointSink {
 public:
  FolderSink(const OutputPlace& place, nlohmann::json config, ModelSpec spec, uint64_t shard_bytes,
             Experts experts = Experts::as_published);
  void put(int block, Param param, const Weight& w) final;
  void put_bias(int block, Param param, const Tensor& b) final;
  void put_carried(const std::string& name, const Tensor& t) final;
  /// A later file replaces an earlier one of the same name.
  void put_side_file(const SideFile& file) final;
  /// Throws Error if a parameter or bias of the spec was never put.
  void finish() final;
  nlohmann::json state() const final;
  void resume(const nlohmann::json& state) final;
  void sync() final { writer_.sync(); }

 protected:
  virtual void write(const StoredTensor& t, const Weight& w) = 0;
  virtual void write_bias(const std::string& name, const Tensor& b) { write_tensor(name, b); }
  virtual void describe(nlohmann::json& config) const = 0;  // what config.json says about the weights
  /// Files beside config.json that say it again, as some programs want it.
  virtual std::vector<SideFile> descriptions() const { return {}; }
  /// What `describe` remembers of `write`.
  virtual nlohmann::json seen() const = 0;
  virtual void see_again(const nlohmann::json& seen) = 0;
  void write_tensor(const std::string& name, const Tensor& t) { writer_.put(name, t); }
  /// "visual", "multi_modal_projector": parts whose tensors were carried.
  std::vector<std::string> carried_parts() const;

 private:
  using Place = std::pair<int, Param>;
  /// Keeps a part until all parts of its tensor are there, then gives them.
  std::optional<Weight> complete(std::map<Place, Weight>& waiting, const StoredTensor& t, Place place, const Weight& w);

  nlohmann::json config_;
  ModelSpec spec_;
  StoredTensors stored_;
  AtomicDir dir_;
  SafetensorsFolderWriter writer_;
  std::set<Place> weights_, biases_;
  std::set<std::string> carried_;
  std::map<Place, Weight> waiting_weights_, waiting_biases_;  // parts of fused tensors
};

constexpr uint64_t kShardBytes = 5'000'000'000;  // what Hugging Face tools use
std::unique_ptr<CheckpointSink> create_hf(const OutputPlace& place, const nlohmann::json& config, const ModelSpec& spec,
                                          uint64_t shard_bytes = kShardBytes);
std::unique_ptr<CheckpointSink> create_autoawq(const OutputPlace& place, const nlohmann::json& config,
                                               const ModelSpec& spec, const QuantSpec& quant,
                                               uint64_t shard_bytes = kShardBytes);

}  // namespace awq
