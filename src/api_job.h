#pragma once
// What awq::quantize and awq::plan share: options checked and completed, and what follows from them and the headers.
#include "awq/awq.h"
#include "engine/runtime.h"
#include "quantizer/job_folder.h"
#include "quantizer/job_memory.h"
#include "quantizer/search_source.h"

namespace awq {

/// With the method that an empty one stands for.
QuantizeOptions with_method(QuantizeOptions o);

struct JobSetup {
  /// Throws Error for options that do not fit each other or the model.
  JobSetup(const std::filesystem::path& model, QuantizeOptions o) : JobSetup(Checkpoint::open(model), std::move(o)) {}
  JobSetup(std::unique_ptr<Checkpoint> model, QuantizeOptions o);
  const ModelSpec& spec() const { return source->spec(); }
  bool calibrated() const { return method->needs_calibration(); }
  bool keeps() const { return options.keep || options.budget != 0; }
  bool needs_text() const { return calibrated() || keeps(); }
  bool weighs() const;  // tokens, where gradients go back through the model
  bool own_text() const { return needs_text() && options.calibration.empty(); }
  bool gated() const { return options.max_kl || options.min_top1; }
  bool writes_gate_text() const { return gated() && options.gate_text.empty(); }
  Host host() { return {device.pool, device.kernels}; }
  JobShape shape() const;
  uint64_t output_bytes() const;  // where nothing is kept in 16 bits
  double quantized_weights() const;
  double bits_of_blocks() const;   // of a weight of theirs in the file, the mean
  double bits_per_weight() const;  // mean over them

  QuantizeOptions options;
  std::unique_ptr<Checkpoint> source;
  std::shared_ptr<const SearchSource> search;  // in place of one; may be null
  std::unique_ptr<Method> method;
  Device device;
  std::unique_ptr<Backend> statistics;  // of the same threads and kernels, for what is judged or counted, not answered
  const Format* format;
  QuantSpec quant;
  std::string group_size_reason;
  std::optional<QuantSpec> head;

 private:
  int64_t tokenizer_bytes() const;  // of its files
  int64_t largest_text() const;
  void check_options() const;
  void check_judging() const;
};

/// Everything that the output's bytes depend on. Weights are known by their files' size and time of change and by the
/// names, types and shapes of their tensors; other files by their content.
Fingerprint fingerprint_of(const JobSetup& job);

/// By name, the process itself included; 0 where there is none of a stage.
std::vector<std::pair<std::string, int64_t>> stages_of(const JobMemory& need);

/// Throws Error, saying what would do, unless the job fits into the memory that it may have.
void require_memory(const JobSetup& job, const JobMemory& need);
int64_t allowed_memory(const QuantizeOptions& options);
/// Of the disk that a folder is to be made on; the largest number where the system does not tell.
uint64_t free_room(const std::filesystem::path& folder);
/// Throws Error unless the disk has room for `bytes`.
void require_room(const std::filesystem::path& folder, uint64_t bytes, std::string_view option);

}  // namespace awq
