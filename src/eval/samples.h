#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "io/file.h"

namespace awq {

/// A file of what each item scored, JSON lines. A line with "run" says what was evaluated and how; those that follow it
/// are its items. What a killed job has left of a line is cut off.
class SampleFile {
 public:
  /// `resume`: of a file that may be there already. Otherwise it must not be.
  SampleFile(const std::filesystem::path& path, bool resume);
  /// Scores by item of what is there of this run; what is put next belongs to it.
  std::map<size_t, std::vector<double>> begin(const nlohmann::ordered_json& run, size_t metrics);
  void put(const nlohmann::ordered_json& item);
  void sync() { out_->sync(); }

 private:
  std::filesystem::path path_;
  std::vector<nlohmann::ordered_json> old_;
  std::unique_ptr<OutputFile> out_;
};

}  // namespace awq
