// Searches that llm-awq publishes: torch.save of {"scale": [(producer, (consumers...), scales)], "clip": [(layer,
// bounds [rows, groups, 1])]}.
#include <set>

#include "formats/params.h"
#include "io/torch_file.h"
#include "quantizer/search_source.h"

namespace awq {
namespace {

namespace fs = std::filesystem;
using Kind = PickleValue::Kind;

class PublishedSearch final : public SearchSource {
 public:
  PublishedSearch(const fs::path& file, const Checkpoint& model) : file_(MappedFile(file)), model_(model.spec()) {
    for (int i = 0; i < int(model_.blocks.size()); ++i)
      for (Param p : model_.blocks[size_t(i)].params()) places_.emplace(base_name(model_, i, p), std::pair(i, p));
    for (const PickleValue* e : list("scale")) add_scale(*e);
    for (const PickleValue* e : list("clip")) add_clip(*e);
    for (int i = 0; i < int(model_.blocks.size()); ++i) block(i);  // checks every value
  }
  int bits() const override { return 0; }
  int group_size() const override { return group_size_; }

  BlockSearch block(int index) const override {
    const BlockSpec& spec = model_.blocks.at(size_t(index));
    BlockSearch found;
    for (const ScaleGroup& g : scale_groups(spec)) {
      if (const auto it = g.producer ? scales_.find({index, *g.producer}) : scales_.end(); it != scales_.end())
        found.scales.emplace(*g.producer, scales(*it->second, g, spec, name(index, *g.producer)));
      for (Param p : g.consumers)
        if (const auto it = clips_.find({index, p}); it != clips_.end())
          found.ranges.emplace(p, ranges(*it->second, spec.shape(p), name(index, p)));
    }
    return found;
  }

 private:
  using Place = std::pair<int, Param>;

  std::string name(int block, Param p) const {
    return fmt::format("{}: {}", file_.name(), base_name(model_, block, p));
  }

  const std::vector<PickleValue*>& list(std::string_view key) const {
    const PickleValue& root = file_.root();
    if (root.kind == Kind::dict)
      for (size_t i = 0; i < root.items.size(); i += 2)
        if (root.items[i]->kind == Kind::text && root.items[i]->text == key && root.items[i + 1]->kind == Kind::list)
          return root.items[i + 1]->items;
    fail("load", "{}: it is {} without a list \"{}\"; expected llm-awq's {{\"scale\": [...], \"clip\": [...]}}",
         file_.name(), name_of(root.kind), key);
  }
  const PickleValue& item(const PickleValue& entry, size_t i, Kind kind, size_t count) const {
    if (entry.kind != Kind::tuple || entry.items.size() != count || entry.items[i]->kind != kind)
      fail("load", "{}: an entry of its lists is no tuple of {} with {} at place {}; it is no search of llm-awq",
           file_.name(), count, name_of(kind), i);
    return *entry.items[i];
  }
  Place place(const PickleValue& text) const {
    const auto it = text.kind == Kind::text ? places_.find(text.text) : places_.end();
    if (it == places_.end())
      fail("load", "{}: it names {:.100}, which this model does not have; the search was made for another model",
           file_.name(), text.text);
    return it->second;
  }

  void add_scale(const PickleValue& e) {
    const auto [index, producer] = place(item(e, 0, Kind::text, 3));
    std::set<Place> named, consumers;
    for (const PickleValue* c : item(e, 1, Kind::tuple, 3).items) named.insert(place(*c));
    for (const ScaleGroup& g : scale_groups(model_.blocks[size_t(index)]))
      if (g.producer == producer)
        for (Param p : g.consumers) consumers.insert({index, p});
    if (consumers.empty() || named != consumers)
      fail("load", "{}: the layers that it scales with it are not those of this model that read its output",
           name(index, producer));
    if (!scales_.emplace(Place(index, producer), &item(e, 2, Kind::tensor, 3)).second)
      fail("load", "{} is scaled twice", name(index, producer));
  }
  void add_clip(const PickleValue& e) {
    const auto [index, p] = place(item(e, 0, Kind::text, 2));
    if (is_norm(p.role)) fail("load", "{}: a norm is clipped; it is no search of llm-awq", name(index, p));
    if (!clips_.emplace(Place(index, p), &item(e, 1, Kind::tensor, 2)).second)
      fail("load", "{} is clipped twice", name(index, p));
    const FoundRanges found = ranges(*clips_.at({index, p}), model_.blocks[size_t(index)].shape(p), name(index, p));
    if (group_size_ && found.group_size != group_size_)
      fail("load", "{}: groups of {} columns, where those before have {}", name(index, p), found.group_size,
           group_size_);
    group_size_ = found.group_size;
  }

  FoundScales scales(const PickleValue& t, const ScaleGroup& g, const BlockSpec& spec, const std::string& where) const {
    const Tensor s = file_.floats(t, where);
    FoundScales f{.scales = {s.as<float>().begin(), s.as<float>().end()}, .chosen = {}};
    check_scales(f, g, spec.shape(g.consumers.front()).second, where);
    return f;
  }
  FoundRanges ranges(const PickleValue& t, std::pair<int64_t, int64_t> shape, const std::string& where) const {
    const Tensor bounds = file_.floats(t, where);
    const Shape& s = bounds.shape();
    if (s.rank() != 3 || s[0] != shape.first || s[1] < 1 || s[2] != 1 || shape.second % s[1])
      fail("load", "{}: bounds of shape {}, but the layer is {} x {}; the search was made for another model", where,
           s.text(), shape.first, shape.second);
    FoundRanges f{.group_size = int(shape.second / s[1]), .ranges = {}};
    for (float b : bounds.as<float>()) f.ranges.push_back({-b, b});
    check_ranges(f, shape, where);
    return f;
  }

  TorchFile file_;
  const ModelSpec& model_;
  std::map<std::string, Place> places_;
  std::map<Place, const PickleValue*> scales_, clips_;
  int group_size_ = 0;
};

}  // namespace

std::unique_ptr<SearchSource> open_published_search(const fs::path& file, const Checkpoint& model) {
  return std::make_unique<PublishedSearch>(file, model);
}

}  // namespace awq
