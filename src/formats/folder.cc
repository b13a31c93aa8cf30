#include "formats/folder.h"

#include <algorithm>
#include <array>

#include "base/check.h"
#include "formats/params.h"
#include "io/json.h"

namespace awq {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::array<std::string_view, 6> kPickles = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"};
constexpr std::array<std::string_view, 6> kOtherWeights = {".safetensors", ".gguf", ".h5", ".msgpack", ".onnx", ".ot"};
constexpr std::array<std::string_view, 3> kAboutWeights = {"config.json", "quant_config.json", "quantize_config.json"};

template <size_t n>
bool contains(const std::array<std::string_view, n>& list, std::string_view value) {
  return std::ranges::find(list, value) != list.end();
}

bool is_pickle(const fs::path& file) { return contains(kPickles, file.extension().string()); }

bool holds_weights(const fs::path& file) {
  return is_pickle(file) || contains(kOtherWeights, file.extension().string());
}

bool travels(const fs::path& file) {
  const std::string name = file.filename().string();
  return !holds_weights(file) && !contains(kAboutWeights, name) && !name.ends_with(".index.json");
}

// Sorted by name. Links count as what they point to: the hub's cache is made of them.
std::vector<fs::directory_entry> entries_of(const fs::path& folder) {
  std::error_code error;
  std::vector<fs::directory_entry> entries;
  for (const auto& entry : fs::directory_iterator(folder, error)) entries.push_back(entry);
  if (error) fail("open", "{}: {}", folder.string(), error.message());
  std::ranges::sort(entries);
  return entries;
}

std::vector<fs::path> regular_files(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : entries_of(folder))
    if (std::error_code ignored; entry.is_regular_file(ignored)) files.push_back(entry.path());
  return files;
}

SafetensorsFolder open_files(const fs::path& folder) {
  if (SafetensorsFolder::exists(folder)) return SafetensorsFolder(folder);
  const std::string path = folder.string();
  for (const fs::path& file : regular_files(folder))
    if (is_pickle(file))
      fail("open",
           "{}: the weights are pickles ({}); reading one can run any code that its author put there. "
           "Convert them once, where you trust them: python3 -c \"from transformers import AutoModelForCausalLM as M; "
           "M.from_pretrained('{}', torch_dtype='auto').save_pretrained('{}-safetensors')\"",
           path, file.filename().string(), path, path);
  fail("open", "{}: there is neither model.safetensors nor model.safetensors.index.json; is the download complete?",
       path);
}

ModelSpec parse_spec(const Json& config, const fs::path& folder) {
  const auto it = config.find("architectures");
  if (it == config.end() || !it->is_array() || it->empty() || !it->front().is_string())
    fail("open", "{}/config.json: \"architectures\" should be a list with a name, but is {}", folder.string(),
         it == config.end() ? "missing" : shown(*it));
  const Architecture& arch = find_architecture(it->front().get<std::string>());
  try {
    return arch.parse(config);
  } catch (const Json::exception& e) {
    fail("open", "{}/config.json: a value is missing or of the wrong kind: {}", folder.string(), e.what());
  }
}

std::string names_of(std::initializer_list<DType> types) {
  std::string names;
  for (DType t : types) names += (names.empty() ? "" : " or ") + std::string(name_of(t));
  return names;
}

uint64_t header_room(const ModelSpec& spec) {
  // No format stores a parameter as more than three tensors and a bias, or adds more than eight letters to its name.
  uint64_t room = 0;
  for (const auto& [block, param] : params_of(spec))
    room += 4 * SafetensorsWriter::room_for(base_name(spec, block, param) + ".qweight");
  return room;
}

}  // namespace

Json read_config(const fs::path& folder) {
  const std::string file = (folder / "config.json").string();
  Json config = parse_json(read_text(file), file);
  if (!config.is_object()) fail("open", "{}: a JSON object is expected, not {}", file, shown(config));
  return config;
}

FolderCheckpoint::FolderCheckpoint(const fs::path& folder, Json config)
    : folder_(folder), config_(std::move(config)), spec_(parse_spec(config_, folder)), files_(open_files(folder)) {}

std::string FolderCheckpoint::name(int block, Param param) const {
  const std::string own = base_name(spec_, block, param), head = base_name(spec_, -1, {Role::head});
  // Of two tensors that share memory safetensors' writers keep one, and not always the embedding.
  const bool under_head = param.role == Role::embed && spec_.tied_embeddings && !files_.find(own + ".weight");
  return under_head && files_.find(head + ".weight") ? head : own;
}

Weight FolderCheckpoint::weight(int block, Param param) const {
  const std::string tensor = name(block, param) + ".weight";
  return is_norm(param.role) ? vector(tensor) : files_.tensor(tensor);
}

Pieces FolderCheckpoint::pieces(int block, Param param) const {
  const std::string tensor = name(block, param) + ".weight";
  const SafetensorsEntry& e = files_.find(tensor)->entries().find(tensor)->second;
  return in_bands(e.shape, *e.dtype, e.shape[1] * int64_t(size_of(*e.dtype)), 1,
                  [this, tensor](int64_t begin, int64_t end) { return files_.rows(tensor, begin, end); });
}

std::vector<TensorInfo> FolderCheckpoint::tensors() const {
  std::vector<TensorInfo> all;
  for (const SafetensorsFile& file : files_.files())
    for (const auto& [name, e] : file.entries()) all.push_back({name, e.type, e.shape, e.end - e.begin});
  return all;
}

std::vector<SideFile> FolderCheckpoint::side_files() const {
  std::vector<SideFile> files;
  for (const fs::path& file : regular_files(folder_))
    if (travels(file)) files.push_back({file.filename().string(), "", file});
  return files;
}

std::vector<std::string> FolderCheckpoint::left_out() const {
  std::set<fs::path> read;
  for (const SafetensorsFile& file : files_.files()) read.insert(fs::path(file.name()).filename());
  std::vector<std::string> names;
  for (const auto& entry : entries_of(folder_)) {
    const fs::path name = entry.path().filename();
    if (std::error_code ignored; entry.is_directory(ignored))
      names.push_back(name.string() + "/");
    else if (holds_weights(name) && !read.contains(name))
      names.push_back(name.string());
  }
  return names;
}

std::vector<fs::path> FolderCheckpoint::weight_files() const {
  std::vector<fs::path> paths;
  for (const SafetensorsFile& file : files_.files()) paths.emplace_back(file.name());
  return paths;
}

void TensorCheck::require(const std::string& name, const Shape& shape, std::initializer_list<DType> types) {
  const SafetensorsFile* file = files_.find(name);
  if (!file)
    fail("open", "{}: tensor {} is missing; is the folder complete, and of the model that its config.json describes?",
         folder_, name);
  const SafetensorsEntry& e = file->entries().find(name)->second;
  if (!e.dtype || std::ranges::find(types, *e.dtype) == types.end())
    fail("open", "{}: tensor {} is {}, but {} is expected", file->name(), name, shown(e.type), names_of(types));
  if (e.shape != shape)
    fail("open", "{}: tensor {} has shape {}, but config.json makes it {}; are they of the same model?", file->name(),
         name, e.shape.text(), shape.text());
  required_.insert(name);
}

bool TensorCheck::harmless(std::string_view name) const {
  if (name.ends_with("rotary_emb.inv_freq")) return true;  // older files: computed from the config, never trained
  return spec_.tied_embeddings && name == base_name(spec_, -1, {Role::head}) + ".weight";  // a copy of embed
}

void TensorCheck::no_others() const {
  std::string first;
  int count = 0;
  for (const SafetensorsFile& file : files_.files())
    for (const auto& [name, entry] : file.entries())
      if (!required_.contains(name) && !harmless(name) && ++count <= 3)
        first += (first.empty() ? "" : ", ") + shown(name);
  if (count)
    fail("open", "{}: {} has no tensor like {}{}; the model would be computed without {}", folder_, spec_.arch, first,
         count > 3 ? fmt::format(" and {} more", count - 3) : "", count > 1 ? "them" : "it");
}

FolderSink::FolderSink(const OutputPlace& place, Json config, ModelSpec spec, uint64_t shard_bytes)
    : config_(std::move(config)), spec_(std::move(spec)), dir_(place), writer_(dir_, header_room(spec_), shard_bytes) {}

std::string FolderSink::name(int block, Param param) const { return base_name(spec_, block, param); }

void FolderSink::put(int block, Param param, const Weight& w) {
  const auto* q = std::get_if<QMatrix>(&w);
  const Shape got = q ? q->codes.shape() : std::get<Tensor>(w).shape(), expected = shape_of(spec_, block, param);
  if (got != expected)
    fail("write", "{} has shape {}, but the model makes it {}", name(block, param), got.text(), expected.text());
  write(name(block, param), param, w);
  weights_.emplace(block, param);
}

void FolderSink::put_bias(int block, Param param, const Tensor& b) {
  if (!has_bias(spec_, block, param) || b.shape() != Shape{shape_of(spec_, block, param)[0]})
    fail("write", "{}: the model has no bias of shape {} there", name(block, param), b.shape().text());
  write_bias(name(block, param) + ".bias", b);
  biases_.emplace(block, param);
}

void FolderSink::put_side_file(const SideFile& file) {
  if (!travels(file.name))
    fail("write", "\"{}\" is no side file: the name stands for weights or what describes them", file.name);
  file.path.empty() ? dir_.write(file.name, file.bytes) : dir_.copy(file.name, file.path);
}

namespace {

using Places = std::set<std::pair<int, Param>>;

Json to_json(const Places& places) {
  Json list = Json::array();
  for (const auto& [block, p] : places) list.push_back({block, int(p.role), p.expert});
  return list;
}

Places places_of(const Json& list) {
  Places places;
  for (const Json& p : list) places.emplace(p.at(0).get<int>(), Param{Role(p.at(1).get<int>()), p.at(2).get<int>()});
  return places;
}

}  // namespace

Json FolderSink::state() const {
  return {{"files", writer_.state()}, {"weights", to_json(weights_)}, {"biases", to_json(biases_)}, {"seen", seen()}};
}

void FolderSink::resume(const Json& state) {
  writer_.resume(state.at("files"));
  weights_ = places_of(state.at("weights"));
  biases_ = places_of(state.at("biases"));
  see_again(state.at("seen"));
}

void FolderSink::finish() {
  for (const auto& [block, param] : params_of(spec_)) {
    const bool bias = has_bias(spec_, block, param);
    if (!weights_.contains({block, param}) || (bias && !biases_.contains({block, param})))
      fail("write", "{}: its weight or bias was not given, so the model would be incomplete", name(block, param));
  }
  writer_.finish();
  describe(config_);
  dir_.write("config.json", config_.dump(2) + "\n");
  dir_.commit();
}

}  // namespace awq
