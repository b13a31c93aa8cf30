#pragma once
#include <filesystem>
#include <memory>

#include "formats/format.h"
#include "io/safetensors.h"
#include "quantizer/method.h"

namespace awq {

/// Scales of a group, [channels] of its consumers' input: positive, equal within tied heads.
struct FoundScales {
  std::vector<float> scales;
  Candidate chosen;  // {0, false} where the file does not say it
};
/// Ranges of a layer's groups, [rows * groups] of the scaled weights.
struct FoundRanges {
  int group_size = 0;
  std::vector<Range> ranges;
};
/// What a search found for one block. A producer that is absent has no scales, a layer that is absent no ranges.
struct BlockSearch {
  std::map<Param, FoundScales> scales;
  std::map<Param, FoundRanges> ranges;
};

/// The result of a search for one model, in a file. Every name, shape and value is checked against the model before it
/// is handed out. Safe to read from several threads.
class SearchSource {
 public:
  /// This program's safetensors, which must be of the same model, or llm-awq's .pt. Throws Error.
  static std::unique_ptr<SearchSource> open(const std::filesystem::path& file, const Checkpoint& model);
  virtual ~SearchSource() = default;
  virtual BlockSearch block(int index) const = 0;
  /// Bits and columns of a group that ranges were searched for; 0 where the file has none, or does not say it.
  virtual int bits() const = 0;
  virtual int group_size() const = 0;  // QuantSpec::kWholeRow: whole rows
  virtual bool symmetric() const { return false; }
};

/// Whether ranges are used: what was cut for 4 bits would lose more than it saves at 8, and symmetric levels are cut at
/// the larger end alone. Other groups are cut as those that they overlap.
bool ranges_fit(const SearchSource& source, const QuantSpec& spec);

/// Rounds with a search's scales and ranges instead of searching. Errors in its solutions are of the weights.
std::unique_ptr<Method> make_replay(std::shared_ptr<const SearchSource> source);

/// Writes a search block by block into a safetensors file, which becomes the one that is asked for when it is whole.
class SearchWriter {
 public:
  /// `file`: where it is until then. `method`: that searched. `calibration`: hash of its tokens.
  SearchWriter(const std::filesystem::path& file, const Checkpoint& model, const QuantSpec& spec,
               std::string_view method, const std::string& calibration);
  /// Goes on with what an earlier process wrote, with the same arguments, up to its `state`.
  SearchWriter(const std::filesystem::path& file, const Checkpoint& model, const QuantSpec& spec,
               std::string_view method, const std::string& calibration, const SafetensorsWriter::State& state);
  void put(int block, const Solution& s);
  SafetensorsWriter::State state() const { return writer_.state(); }
  void sync() { writer_.sync(); }
  /// Appears whole or not at all.
  void finish(const std::filesystem::path& as);

 private:
  std::filesystem::path file_;
  const ModelSpec& spec_;
  QuantSpec quant_;
  SafetensorsWriter writer_;
};

/// For the formats: throws Error unless `f` fits the group, naming `where`.
void check_scales(const FoundScales& f, const ScaleGroup& group, int64_t channels, const std::string& where);
void check_ranges(const FoundRanges& f, std::pair<int64_t, int64_t> shape, const std::string& where);
std::unique_ptr<SearchSource> open_published_search(const std::filesystem::path& file, const Checkpoint& model);

}  // namespace awq
