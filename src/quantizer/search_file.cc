// A search as a safetensors file: PRODUCER.scales [channels], PRODUCER.candidate [2] (ratio, weight term),
// LAYER.ranges [rows, groups, 2] of layers that were clipped; docs/formats.md.
#include <unistd.h>

#include <cmath>

#include "formats/fingerprint.h"
#include "formats/params.h"
#include "io/torch_file.h"
#include "quantizer/search_source.h"

namespace awq {
namespace {

namespace fs = std::filesystem;
constexpr const char *kFormat = "awq-search", *kVersion = "1", *kRows = "-1";

std::string scales_name(const ModelSpec& m, int block, Param producer) {
  return base_name(m, block, producer) + ".scales";
}
std::string candidate_name(const ModelSpec& m, int block, Param producer) {
  return base_name(m, block, producer) + ".candidate";
}
std::string ranges_name(const ModelSpec& m, int block, Param layer) { return base_name(m, block, layer) + ".ranges"; }

int64_t channels_of(const BlockSpec& b, const ScaleGroup& g) { return b.shape(g.consumers.front()).second; }

uint64_t header_room(const ModelSpec& m) {
  uint64_t room = 0;
  for (int i = 0; i < int(m.blocks.size()); ++i)
    for (const ScaleGroup& g : scale_groups(m.blocks[size_t(i)])) {
      if (g.producer)
        room += SafetensorsWriter::room_for(scales_name(m, i, *g.producer)) +
                SafetensorsWriter::room_for(candidate_name(m, i, *g.producer));
      for (Param p : g.consumers) room += SafetensorsWriter::room_for(ranges_name(m, i, p));
    }
  return room;
}

class SearchFile final : public SearchSource {
 public:
  SearchFile(const fs::path& file, const Checkpoint& model) : file_(MappedFile(file)), model_(model.spec()) {
    if (value("format") != kFormat || value("version") != kVersion)
      fail("load",
           "{}: its format is \"{}\", version \"{}\", where \"{}\", version \"{}\" is expected: a file written "
           "by --save-search",
           file_.name(), value("format"), value("version"), kFormat, kVersion);
    check_shapes();
    if (const std::string here = fingerprint(model); value("model") != here)
      fail("load",
           "{}: this search was made for a model with the fingerprint {:.12}, but this one has {:.12}: the shapes are "
           "the same, the weights are not. Search again, with --save-search",
           file_.name(), value("model"), here);
  }
  int bits() const override { return number("bits"); }
  int group_size() const override { return value("group_size") == kRows ? QuantSpec::kWholeRow : number("group_size"); }
  bool symmetric() const override { return value("symmetric") == "1"; }  // absent in files of earlier versions

  BlockSearch block(int index) const override {
    const BlockSpec& spec = model_.blocks.at(size_t(index));
    BlockSearch found;
    for (const ScaleGroup& g : scale_groups(spec)) {
      if (g.producer) found.scales.emplace(*g.producer, scales(index, spec, g));
      for (Param p : g.consumers) add_ranges(index, p, spec, found);
    }
    return found;
  }

 private:
  FoundScales scales(int index, const BlockSpec& spec, const ScaleGroup& g) const {
    const std::string name = scales_name(model_, index, *g.producer);
    const Tensor s = file_.tensor(name), c = file_.tensor(candidate_name(model_, index, *g.producer));
    FoundScales f{.scales = {s.as<float>().begin(), s.as<float>().end()},
                  .chosen = {c.as<float>()[0], c.as<float>()[1] != 0}};
    check_scales(f, g, channels_of(spec, g), where(name));
    return f;
  }
  std::string where(const std::string& tensor) const { return fmt::format("{}: tensor {}", file_.name(), tensor); }
  std::string value(std::string_view key) const {
    const auto it = file_.metadata().find(key);
    return it == file_.metadata().end() ? "" : it->second;
  }
  int number(std::string_view key) const {
    const std::string text = value(key);
    if (text.empty() || text.size() > 6 || text.find_first_not_of("0123456789") != text.npos)
      fail("load", "{}: its metadata has no valid \"{}\": \"{}\"", file_.name(), key, text);
    return std::stoi(text);
  }

  bool require(const std::string& tensor, const Shape& shape, bool optional = false) const {
    const auto it = file_.entries().find(tensor);
    const bool there = it != file_.entries().end();
    if (!there && optional) return false;
    if (!there || it->second.dtype != DType::f32 || it->second.shape != shape)
      fail("load", "{} should be F32 {}, but {}; the search was made for a model of another shape", where(tensor),
           shape.text(), there ? fmt::format("is {} {}", it->second.type, it->second.shape.text()) : "is not there");
    return true;
  }
  void check_shapes() const {
    size_t seen = 0;
    for (int i = 0; i < int(model_.blocks.size()); ++i) {
      const BlockSpec& spec = model_.blocks[size_t(i)];
      for (const ScaleGroup& g : scale_groups(spec)) {
        if (g.producer)
          seen += require(scales_name(model_, i, *g.producer), {channels_of(spec, g)}) +
                  require(candidate_name(model_, i, *g.producer), {2});
        for (Param p : g.consumers) seen += require(ranges_name(model_, i, p), ranges_shape(spec, p), true);
      }
    }
    if (seen != file_.entries().size())
      fail("load",
           "{}: it holds {} tensors, of which the model has a use for {}; the search was made for another model",
           file_.name(), file_.entries().size(), seen);
  }
  int group_in(int64_t cols) const { return QuantSpec{.group_size = group_size()}.of_width(cols).group_size; }
  Shape ranges_shape(const BlockSpec& spec, Param p) const {
    const auto [rows, cols] = spec.shape(p);
    const int g = group_in(cols);
    if (!g || cols % g)
      fail("load", "{}: its groups of {} columns do not divide the {} of {}", file_.name(), g, cols, name_of(p.role));
    return {rows, cols / g, 2};
  }
  void add_ranges(int index, Param p, const BlockSpec& spec, BlockSearch& found) const {
    const std::string name = ranges_name(model_, index, p);
    if (!file_.entries().contains(name)) return;
    const Tensor t = file_.tensor(name);
    const auto v = t.as<float>();
    FoundRanges f{.group_size = group_in(spec.shape(p).second), .ranges = {}};
    for (size_t i = 0; i < v.size(); i += 2) f.ranges.push_back({v[i], v[i + 1]});
    check_ranges(f, spec.shape(p), where(name));
    found.ranges.emplace(p, std::move(f));
  }

  SafetensorsFile file_;
  const ModelSpec& model_;
};

SafetensorsWriter::Metadata metadata_of(const Checkpoint& model, const QuantSpec& spec, std::string_view method,
                                        const std::string& calibration) {
  return {
      {"format", kFormat},
      {"version", kVersion},
      {"model", fingerprint(model)},
      {"method", std::string(method)},
      {"bits", std::to_string(spec.bits)},
      {"group_size", spec.group_size == QuantSpec::kWholeRow ? std::string(kRows) : std::to_string(spec.group_size)},
      {"symmetric", spec.symmetric ? "1" : "0"},
      {"sha256_of_token_ids", calibration}};
}

}  // namespace

void check_scales(const FoundScales& f, const ScaleGroup& group, int64_t channels, const std::string& where) {
  if (int64_t(f.scales.size()) != channels)
    fail("load", "{}: {} scales, but {} has {} input channels; the search was made for another model", where,
         f.scales.size(), name_of(group.consumers.front().role), channels);
  for (size_t i = 0; i < f.scales.size(); ++i)
    if (!std::isfinite(f.scales[i]) || f.scales[i] <= 0)
      fail("load", "{}: scale {} is {}; expected a positive number. The file is damaged", where, i, f.scales[i]);
  const auto d = size_t(group.head_dim), span = d * size_t(group.tied_heads);
  for (size_t i = 0; group.tied_heads > 1 && i < f.scales.size(); ++i)
    if (f.scales[i] != f.scales[i / span * span + i % d])
      fail("load", "{}: scale {} differs between query heads that share a kv head, so {} cannot absorb it", where, i,
           name_of(group.producer->role));
}

void check_ranges(const FoundRanges& f, std::pair<int64_t, int64_t> shape, const std::string& where) {
  if (f.group_size < 1 || shape.second % f.group_size ||
      int64_t(f.ranges.size()) != shape.first * (shape.second / f.group_size))
    fail("load", "{}: {} ranges of {} columns, but the layer is {} x {}; the search was made for another model", where,
         f.ranges.size(), f.group_size, shape.first, shape.second);
  for (size_t i = 0; i < f.ranges.size(); ++i)
    if (!(f.ranges[i].low <= 0 && f.ranges[i].high >= 0 && std::isfinite(f.ranges[i].high - f.ranges[i].low)))
      fail("load", "{}: range {} is [{}, {}], which does not hold zero. The file is damaged", where, i, f.ranges[i].low,
           f.ranges[i].high);
}

std::unique_ptr<SearchSource> SearchSource::open(const fs::path& file, const Checkpoint& model) {
  return is_torch_file(file) ? open_published_search(file, model) : std::make_unique<SearchFile>(file, model);
}

SearchWriter::SearchWriter(const fs::path& file, const Checkpoint& model, const QuantSpec& spec,
                           std::string_view method, const std::string& calibration)
    : file_(file),
      spec_(model.spec()),
      quant_(spec),
      writer_(file, header_room(spec_), metadata_of(model, spec, method, calibration)) {}

SearchWriter::SearchWriter(const fs::path& file, const Checkpoint& model, const QuantSpec& spec,
                           std::string_view method, const std::string& calibration,
                           const SafetensorsWriter::State& state)
    : file_(file),
      spec_(model.spec()),
      quant_(spec),
      writer_(file, header_room(spec_), state, metadata_of(model, spec, method, calibration)) {}

void SearchWriter::put(int block, const Solution& s) {
  for (const GroupResult& g : s.groups) {
    writer_.put(scales_name(spec_, block, *g.group.producer), Tensor::of<float>(g.scales, {int64_t(g.scales.size())}));
    const float candidate[] = {g.chosen.ratio, float(g.chosen.weight_term)};
    writer_.put(candidate_name(spec_, block, *g.group.producer), Tensor::of<float>(candidate, {2}));
  }
  static_assert(sizeof(Range) == 2 * sizeof(float));
  for (const LayerResult& l : s.layers) {
    if (l.ranges.empty()) continue;
    const auto [rows, cols] = spec_.blocks[size_t(block)].shape(l.param);
    writer_.put(ranges_name(spec_, block, l.param),
                Tensor::of<float>({&l.ranges.front().low, 2 * l.ranges.size()},
                                  {rows, cols / quant_.of_width(cols).group_size, 2}));
  }
}

// By way of a copy beside it: it may be on another disk. It is there already where a process was killed after this.
void SearchWriter::finish(const fs::path& as) {
  writer_.close();
  if (std::error_code ignored; fs::exists(as, ignored)) {
    const MappedFile there(as), here(file_);
    if (std::ranges::equal(there.bytes(), here.bytes())) return;
    fail("write", "{} exists already and is another search; remove it or choose another name", as.string());
  }
  const fs::path partial = fmt::format("{}.partial-{}", as.string(), getpid());
  fs::copy_file(file_, partial, fs::copy_options::overwrite_existing);
  fs::rename(partial, as);
}

}  // namespace awq
