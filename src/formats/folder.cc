#include "formats/folder.h"

#include <algorithm>
#include <array>

#include "base/check.h"
#include "formats/params.h"
#include "io/json.h"
#include "io/torch_file.h"

namespace awq {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::array<std::string_view, 6> kPickles = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"};
constexpr std::array<std::string_view, 6> kOtherWeights = {".safetensors", ".gguf", ".h5", ".msgpack", ".onnx", ".ot"};
constexpr std::array<std::string_view, 4> kAboutWeights = {"config.json", "quant_config.json", "quantize_config.json",
                                                           "hf_quant_config.json"};

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
  if (const fs::path file = torch_file(folder); !file.empty())
    return SafetensorsFolder(folder, TorchFile(MappedFile(file)).state_dict());
  const std::string path = folder.string();
  for (const fs::path& file : regular_files(folder))
    if (is_pickle(file))
      fail("open",
           "{}: the weights are pickles ({}); reading one can run any code that its author put there. "
           "Convert them once, where you trust them: python3 -c \"from transformers import AutoModelForCausalLM as M; "
           "M.from_pretrained('{}', torch_dtype='auto').save_pretrained('{}-safetensors')\"",
           path, file.filename().string(), path, path);
  if (fs::exists(folder / "llm" / "config.json"))
    fail("open",
         "{}: its parts are folders of their own, and the language, {}/llm, is a model by itself; give that one", path,
         path);
  fail("open", "{}: there is neither model.safetensors nor model.safetensors.index.json; is the download complete?",
       path);
}

std::string names_of(std::initializer_list<DType> types) {
  std::string names;
  for (DType t : types) names += (names.empty() ? "" : " or ") + std::string(name_of(t));
  return names;
}

const UnusedTensors* unused(const ModelSpec& spec, std::string_view tensor) {
  const auto it =
      std::ranges::find_if(spec.unused, [&](const UnusedTensors& u) { return tensor.starts_with(u.begin); });
  return it == spec.unused.end() ? nullptr : &*it;
}

/// See ModelSpec::other_parts.
bool is_of_other_part(const ModelSpec& spec, std::string_view tensor) {
  return std::ranges::any_of(spec.other_parts, [&](const std::string& begin) { return tensor.starts_with(begin); });
}

/// The layout that the files have, by the final norm, which no format packs; and what else is in them.
ModelSpec located(ModelSpec spec, const SafetensorsFolder& files) {
  const std::vector<NameLayout> layouts = spec.layouts;
  const auto fits = [&](const NameLayout& layout) {
    spec.layouts = {layout};
    return files.find(source_of(spec, -1, {Role::final_norm}).name + ".weight") != nullptr;
  };
  if (std::ranges::none_of(layouts, fits)) spec.layouts = layouts;
  for (const SafetensorsFile& file : files.files())
    for (const auto& [name, e] : file.entries())
      if (is_of_other_part(spec, name)) spec.carried.push_back(name);
  return spec;
}

/// Experts that a family publishes in one tensor may lie apart in its files all the same.
Experts experts_in(const ModelSpec& spec, const SafetensorsFolder& files, Experts otherwise) {
  for (int i = 0; i < int(spec.blocks.size()); ++i) {
    const BlockSpec& b = spec.blocks[size_t(i)];
    if (!b.experts) continue;
    const Source s = source_of(spec, i, {Role::down});
    return s.stack && files.find(s.apart + ".weight") ? Experts::apart : otherwise;
  }
  return otherwise;
}

StoredTensors stored_in(const ModelSpec& spec, const SafetensorsFolder& files, Experts otherwise) {
  return {spec, experts_in(spec, files, otherwise)};
}

uint64_t header_room(const ModelSpec& spec) {
  // No format stores a parameter as more than three tensors and a bias, or adds more than eight letters to its name.
  uint64_t room = 0;
  for (const auto& [block, param] : params_of(spec))
    room += 4 * SafetensorsWriter::room_for(base_name(spec, block, param) + ".qweight");
  for (const std::string& name : spec.carried) room += SafetensorsWriter::room_for(name);
  return room;
}

}  // namespace

fs::path torch_file(const fs::path& folder) {
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored) || SafetensorsFolder::exists(folder)) return {};
  fs::path found;
  for (const fs::path& file : regular_files(folder))
    if (file.extension() == ".pt" && is_torch_file(file)) {
      if (!found.empty()) return {};
      found = file;
    }
  return found;
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

Json read_config(const fs::path& folder) {
  const std::string file = (folder / "config.json").string();
  Json config = parse_json(read_text(file), file);
  if (!config.is_object()) fail("open", "{}: a JSON object is expected, not {}", file, shown(config));
  return config;
}

FolderCheckpoint::FolderCheckpoint(const fs::path& folder, Json config, Experts experts)
    : folder_(folder),
      config_(std::move(config)),
      spec_(parse_spec(config_, folder)),
      files_(open_files(folder)),
      stored_(stored_in(spec_ = located(std::move(spec_), files_), files_, experts)) {}

std::string FolderCheckpoint::name(const StoredTensor& t) const {
  const std::string head = source_of(spec_, -1, {Role::head}).name;
  // Of two tensors that share memory safetensors' writers keep one, and not always the embedding.
  const bool under_head = t.first().role == Role::embed && spec_.tied_embeddings && !files_.find(t.name + ".weight");
  if (under_head && files_.find(head + ".weight")) return head;
  // Files of the model without its head lack the first part of the names: "h.0.ln_1" for "transformer.h.0.ln_1".
  const std::string bare = t.name.substr(t.name.find('.') + 1);
  for (const char* end : {".weight", ".qweight"})
    if (!files_.find(t.name + end) && files_.find(bare + end)) return bare;
  return t.name;
}

Tensor FolderCheckpoint::rows(const StoredTensor& t, const std::string& tensor, const RowPattern& p, int64_t begin,
                              int64_t end) const {
  if (is_norm(t.first().role)) return files_.rows(tensor, 0, entry(tensor).shape[0]).reshaped({t.rows});
  if (entry(tensor).shape.rank() == 2 && t.stack)  // biases of all experts
    return gather(p, begin, end, [&, all = files_.tensor(tensor).reshaped({t.rows})](int64_t from, int64_t to) {
      return all.rows(from, to).clone();
    });
  if (t.transposed && t.stack) return expert_rows(t, tensor, p, begin, end);
  if (t.transposed && entry(tensor).shape.rank() == 2) return gather_transposed(p, begin, end, files_.tensor(tensor));
  return gather(p, begin, end, [&](int64_t from, int64_t to) { return files_.rows(tensor, from, to); });
}

Tensor FolderCheckpoint::expert_rows(const StoredTensor& t, const std::string& tensor, RowPattern p, int64_t begin,
                                     int64_t end) const {
  const int64_t rows = t.rows / t.stack, cols = t.shape[1], expert = p.begin / rows;
  p.begin -= expert * rows;
  const Tensor all = files_.tensor(tensor).reshaped({t.stack * cols, rows});
  return gather_transposed(p, begin, end, all.rows(expert * cols, (expert + 1) * cols));
}

Weight FolderCheckpoint::weight(int block, Param param) const {
  const StoredTensor& t = stored_.holding(block, param);
  const std::string tensor = weight_name(t);
  if (!is_norm(param.role) && t.parts.size() == 1 && !t.transposed && !t.stack) return files_.tensor(tensor);
  return rows(t, tensor, stored_.rows(block, param), 0, shape_of(spec_, block, param)[0]);
}

Tensor FolderCheckpoint::bias(int block, Param param) const {
  const StoredTensor& t = stored_.holding(block, param);
  return rows(t, bias_name(t), stored_.rows(block, param), 0, shape_of(spec_, block, param)[0]).to(DType::f32);
}

Tensor FolderCheckpoint::carried(const std::string& name) const {
  const Tensor t = files_.tensor(name);
  if (t.dtype() == DType::f8_e4m3)
    fail("open",
         "{}: {} is F8_E4M3, and is no part of the language, which alone is read from it; take the model in 16 bits",
         folder_.string(), name);
  return t;
}

Pieces FolderCheckpoint::pieces(int block, Param param) const {
  const StoredTensor& t = stored_.holding(block, param);
  const Shape shape = shape_of(spec_, block, param);
  const DType type = *entry(weight_name(t)).dtype;
  return in_bands(shape, type, shape[1] * int64_t(size_of(type)), 1,
                  [this, &t, p = stored_.rows(block, param), tensor = weight_name(t)](int64_t begin, int64_t end) {
                    return rows(t, tensor, p, begin, end);
                  });
}

std::string FolderCheckpoint::why_dropped(std::string_view tensor) const {
  if (const UnusedTensors* u = unused(spec_, tensor)) return u->reason;
  const bool head = tensor == source_of(spec_, -1, {Role::head}).name + ".weight";
  return head ? "a copy of the embedding, which the head is tied to" : "computed from config.json, never trained";
}

std::vector<TensorInfo> FolderCheckpoint::tensors() const {
  std::map<std::string, TensorUse> uses;
  for (const StoredTensor& t : stored_.all()) uses[name(t)] = use_of(*this, t.parts.front().block, t.first());
  std::vector<TensorInfo> all;
  for (const SafetensorsFile& file : files_.files())
    for (const auto& [name, e] : file.entries()) {
      TensorInfo& t = all.emplace_back(TensorInfo{name, e.type, e.shape, e.end - e.begin});
      if (is_of_other_part(spec_, name)) continue;  // carried, as every tensor is at first
      auto it = uses.find(name);
      for (const char end : {'.', '_'})  // "_bias", "_scales"
        if (it == uses.end()) it = uses.find(name.substr(0, name.rfind(end)));
      t.reason = it == uses.end() ? why_dropped(name) : why_unused(name);
      if (!t.reason.empty())
        t.use = TensorUse::dropped;
      else if (!name.ends_with("bias"))
        t.use = it->second;
    }
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
  // Older files: masks and frequencies, computed from the config and never trained.
  for (const char* buffer :
       {"rotary_emb.inv_freq", "attn.bias", "attention.bias", "attn.masked_bias", "attention.masked_bias"})
    if (name.ends_with(buffer)) return true;
  if (unused(spec_, name) || is_of_other_part(spec_, name)) return true;
  return spec_.tied_embeddings && name == source_of(spec_, -1, {Role::head}).name + ".weight";  // a copy of embed
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

FolderSink::FolderSink(const OutputPlace& place, Json config, ModelSpec spec, uint64_t shard_bytes, Experts experts)
    : config_(std::move(config)),
      spec_(std::move(spec)),
      stored_(spec_, experts),
      dir_(place),
      writer_(dir_, header_room(spec_), shard_bytes) {}

std::optional<Weight> FolderSink::complete(std::map<Place, Weight>& waiting, const StoredTensor& t, Place place,
                                           const Weight& w) {
  if (t.parts.size() == 1) return w;
  waiting.insert_or_assign(place, w);
  std::vector<Weight> parts;
  for (const StoredPart& p : t.parts)
    if (const auto it = waiting.find({p.block, p.param}); it != waiting.end()) parts.push_back(it->second);
  if (parts.size() < t.parts.size()) return {};
  for (const StoredPart& p : t.parts) waiting.erase({p.block, p.param});
  return merged(t, parts);
}

void FolderSink::put(int block, Param param, const Weight& w) {
  const auto* q = std::get_if<QMatrix>(&w);
  const Shape got = q ? q->codes.shape() : std::get<Tensor>(w).shape(), expected = shape_of(spec_, block, param);
  if (got != expected)
    fail("write", "{} has shape {}, but the model makes it {}", base_name(spec_, block, param), got.text(),
         expected.text());
  const StoredTensor& t = stored_.holding(block, param);
  if (const auto all = complete(waiting_weights_, t, {block, param}, w)) write(t, *all);
  weights_.emplace(block, param);
}

void FolderSink::put_bias(int block, Param param, const Tensor& b) {
  if (!has_bias(spec_, block, param) || b.shape() != Shape{shape_of(spec_, block, param)[0]})
    fail("write", "{}: the model has no bias of shape {} there", base_name(spec_, block, param), b.shape().text());
  const StoredTensor& t = stored_.holding(block, param);
  if (const auto all = complete(waiting_biases_, t, {block, param}, b)) {
    const auto& whole = std::get<Tensor>(*all);
    const std::string name = t.bias_tensor();
    const Tensor stored = t.stack ? whole.reshaped({t.stack, t.rows / t.stack}) : whole;
    is_rounded(param.role) ? write_bias(name, stored) : write_tensor(name, stored);
  }
  biases_.emplace(block, param);
}

void FolderSink::put_carried(const std::string& name, const Tensor& t) {
  write_tensor(name, t);
  carried_.insert(name);
}

std::vector<std::string> FolderSink::carried_parts() const {
  std::vector<std::string> parts;
  for (const std::string& begin : spec_.other_parts)
    if (std::ranges::any_of(carried_, [&](const std::string& name) { return name.starts_with(begin); }))
      parts.push_back(begin.substr(0, begin.size() - 1));
  return parts;
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

// Called where a block ends, and with it every fused tensor.
Json FolderSink::state() const {
  for (const auto* waiting : {&waiting_weights_, &waiting_biases_})
    for (const auto& [place, part] : *waiting)
      fail("write", "{} waits for the rest of its tensor", base_name(spec_, place.first, place.second));
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
      fail("write", "{}: its weight or bias was not given, so the model would be incomplete",
           base_name(spec_, block, param));
  }
  for (const std::string& name : spec_.carried)
    if (!carried_.contains(name)) fail("write", "{} was not given, so the model would be incomplete", name);
  writer_.finish();
  describe(config_);
  dir_.write("config.json", config_.dump(2) + "\n");
  for (const SideFile& f : descriptions()) dir_.write(f.name, f.bytes);
  dir_.commit();
}

}  // namespace awq
