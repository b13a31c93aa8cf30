#pragma once
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "io/scratch.h"

namespace awq {

enum class JobStart : uint8_t { fresh, resume, restart };

/// What decides a job's bytes, in words: (name, value).
using Fingerprint = std::vector<std::pair<std::string, std::string>>;

/// The folder "<output>.awq-job" beside the output, which holds all that a later process needs to go on with a job:
///   lock              of the process at work
///   job.json          the fingerprint
///   calibration.json  token ids, where they were expensive to get
///   weigh.json        how far the tokens are weighed
///   kept.json         layers that stay in 16 bits, where they were measured
///   search            the search so far, where it is to be saved
///   blocks.jsonl      what is known of each finished block
///   state.json        what is done; replaced at once after each block, when all that it counts on is on the disk
///   hidden-0, -1      activations, unless --scratch puts them elsewhere
///   weigh-states, weigh-gradients, weights: of weighing, in the same place
///   output/           the output so far
///   whole/            the output with all weights, until what is found out of it is known and it gets its name
///   judged.json       that
///   log.jsonl         unless --log puts it elsewhere
/// Another process with the same output is refused as long as one is at work. A process that is killed, or a machine
/// that loses its power, leaves the state of the last finished block.
class JobFolder {
 public:
  /// Throws Error if the output exists, another process is at work on it, or an unfinished job is there and `start` is
  /// fresh. `restart` throws away what is there; `resume` goes on with it, or begins where there is nothing.
  JobFolder(const std::filesystem::path& output, const std::filesystem::path& scratch, JobStart start);
  /// Leaves nothing where nothing would be lost with it: no block is done, no calibration and no choice of layers was
  /// kept.
  ~JobFolder();
  JobFolder(const JobFolder&) = delete;
  JobFolder& operator=(const JobFolder&) = delete;

  /// Says what this process is about to do. Throws Error, naming what differs, if the job that is there does another
  /// thing.
  void identify(const Fingerprint& fingerprint);
  std::filesystem::path path(std::string_view name) const { return folder_ / name; }
  const std::filesystem::path& folder() const { return folder_; }
  const std::filesystem::path& scratch() const { return scratch_; }  // folder for hidden states
  const std::filesystem::path& output() const { return output_; }
  std::filesystem::path whole() const { return path("whole"); }
  bool is_whole() const;
  std::filesystem::path rejected() const;  // where an output goes that misses a gate
  /// A process was killed after the output had got `name`, and before it could clean up.
  bool stands(const std::filesystem::path& name) const;

  std::optional<nlohmann::json> read(std::string_view name) const;  // "state.json"; throws Error if it is damaged
  void save(std::string_view name, const nlohmann::json& value);
  bool worth_resuming() const;
  void remove();  // the job is done

 private:
  void require_same(const nlohmann::json& before, const nlohmann::json& now) const;
  void make();
  void clear();
  std::filesystem::path finished_folder() const;  // until all of it is deleted

  std::filesystem::path output_, folder_, scratch_;
  bool own_scratch_;
  std::optional<FileLock> lock_;
};

}  // namespace awq
