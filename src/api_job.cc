#include "api_job.h"

#include <sys/stat.h>

#include "api_group_size.h"
#include "api_head.h"
#include "base/memory.h"
#include "formats/context.h"
#include "io/file.h"
#include "io/sha256.h"

namespace awq {
namespace {

namespace fs = std::filesystem;

// Chosen by measurement, docs/numerics.md "Calibration".
constexpr int kDefaultSequences = 16, kDefaultLength = 512;

double float_weights(const BlockSpec& b) {
  double n = 0;
  for (Param p : b.params()) n += double(b.shape(p).first) * double(std::max<int64_t>(1, b.shape(p).second));
  return n;
}

double matrix_weights(const BlockSpec& b) {
  double n = 0;
  for (Param p : b.params()) n += double(b.shape(p).first) * double(b.shape(p).second);  // a norm has 0 columns
  return n;
}

/// Of a weight: its code, and its part of a scale of 16 bits and of a zero point as wide as a code.
double bits_of(const QuantSpec& q) { return q.bits + (16.0 + q.bits) / q.group_size; }

QuantizeOptions completed(QuantizeOptions o, const ModelSpec& spec) {
  if (o.samples < 0 || o.sample_tokens < 0) fail("quantize", "--samples and --tokens must be positive");
  if (o.resume && o.restart) fail("quantize", "--resume goes on with a job and --restart throws it away; give one");
  if (!o.samples) o.samples = kDefaultSequences;
  if (!o.sample_tokens) o.sample_tokens = std::min(kDefaultLength, spec.max_context);
  if (o.sample_tokens < 32) fail("quantize", "--tokens {}: expected at least 32", o.sample_tokens);
  return o;
}

void add_file(Fingerprint& f, const fs::path& file) {
  struct stat info {};
  if (::stat(file.c_str(), &info) != 0) return;  // vanished: opening it says so
  f.emplace_back(file.filename().string(),
                 fmt::format("{} bytes, changed at {}.{:09}", info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec));
}

std::string hash_of_tensors(const Checkpoint& source) {
  Sha256 hash;
  for (const TensorInfo& t : source.tensors())
    hash.add(fmt::format("{} {} {} {}\n", t.name, t.type, t.shape.text(), t.bytes));
  return hash.hex();
}

std::string hash_of_side_files(const Checkpoint& source) {
  Sha256 hash;
  for (const SideFile& f : source.side_files()) {
    hash.add(f.name + "\n");
    hash.add(f.path.empty() ? f.bytes : read_text(f.path));
  }
  return hash.hex();
}

std::string gigabytes(int64_t bytes) { return fmt::format("{:.2f} GB", double(bytes) / 1e9); }

}  // namespace

JobSetup::JobSetup(const fs::path& model, QuantizeOptions o)
    : options(std::move(o)),
      method(find_method(options.method).make()),
      source(Checkpoint::open(model)),
      device(options.device) {
  options = completed(std::move(options), spec());
  require_context(*source, "quantize", fmt::format("--tokens {}", options.sample_tokens), options.sample_tokens);
  const GroupChoice group = choose_group(spec(), options.group_size, "quantize");
  quant = {.bits = 4, .group_size = group.size, .scale_dtype = DType::f16};
  group_size_reason = group.reason;
  head = choose_head(spec(), options.quantize_head, group.size, "quantize");
}

JobShape JobSetup::shape() const {
  return {.source = *source,
          .dev = *device.backend,
          .spec = quant,
          .head = head,
          .calibrated = calibrated(),
          .sequences = options.samples,
          .length = options.sample_tokens,
          .own_text = own_text(),
          .calibration = {}};
}

uint64_t JobSetup::output_bytes() const {
  const double table = double(spec().vocab) * spec().dim, head_bits = head                     ? bits_of(*head)
                                                                      : spec().tied_embeddings ? 0
                                                                                               : 16;
  double bits = table * (16 + head_bits);
  for (const BlockSpec& b : spec().blocks) bits += float_weights(b) * bits_of(quant);
  return uint64_t(bits / 8);
}

double JobSetup::bits_per_weight() const {
  double weights = head ? double(spec().vocab) * spec().dim : 0, bits = head ? weights * bits_of(*head) : 0;
  for (const BlockSpec& b : spec().blocks) {
    weights += matrix_weights(b);
    bits += matrix_weights(b) * bits_of(quant);
  }
  return bits / weights;
}

Fingerprint fingerprint_of(const JobSetup& job) {
  const QuantizeOptions& o = job.options;
  Fingerprint f = {{"the version of awq", std::string(version())},
                   {"the kernel set", job.device.kernels.name},
                   {"config.json", sha256_hex(job.source->config().dump())},
                   {"the list of tensors", hash_of_tensors(*job.source)}};
  for (const fs::path& file : job.source->weight_files()) add_file(f, file);
  f.emplace_back("the tokenizer or another side file", hash_of_side_files(*job.source));
  f.emplace_back("--method", o.method);
  f.emplace_back("--group-size", std::to_string(job.quant.group_size));
  f.emplace_back("--quantize-head", std::to_string(o.quantize_head));
  if (!job.calibrated()) return f;
  f.emplace_back("--samples", std::to_string(o.samples));
  f.emplace_back("--tokens", std::to_string(o.sample_tokens));
  f.emplace_back("the text of --calib", job.own_text() ? "the model's own" : sha256_hex(read_text(o.calibration)));
  if (job.own_text()) {
    f.emplace_back("--temperature", fmt::format("{}", o.temperature));
    f.emplace_back("--seed", std::to_string(o.seed));
  }
  f.emplace_back("--scratch", o.scratch.empty() ? "left out" : fs::absolute(o.scratch).lexically_normal().string());
  return f;
}

int64_t allowed_memory(const QuantizeOptions& options) {
  return options.max_ram ? options.max_ram : available_memory() + resident_memory();
}

void require_memory(const JobSetup& job, const JobMemory& need) {
  const int64_t allowed = allowed_memory(job.options);
  if (need.peak() <= allowed) return;
  const bool for_text = need.peak() == need.base + need.text;
  JobMemory given = need;
  given.text = 0;
  const std::string way_out =
      for_text ? fmt::format("With a text given by --calib, {} would do", gigabytes(given.peak()))
               : "One block of the model and the statistics of its inputs must fit; no option needs less";
  if (job.options.max_ram)
    fail("quantize", "--max-ram {}: at least {} are needed{}. {}", gigabytes(allowed), gigabytes(need.peak()),
         for_text ? " where the model writes its own calibration text" : "", way_out);
  fail("quantize", "not enough memory: {} are needed{}, {} are available. {}", gigabytes(need.peak()),
       for_text ? " where the model writes its own calibration text" : "", gigabytes(allowed), way_out);
}

uint64_t free_room(const fs::path& folder) {
  std::error_code error;
  const auto space = fs::space(fs::absolute(folder).parent_path(), error);
  return error ? UINT64_MAX : space.available;
}

void require_room(const fs::path& folder, uint64_t bytes, std::string_view option) {
  if (const uint64_t room = free_room(folder); room < bytes)
    fail("quantize",
         "{}: about {:.1f} MB will be written, but the disk has {:.1f} MB free. Free some space or choose another disk "
         "with {}",
         folder.string(), double(bytes) / 1e6, double(room) / 1e6, option);
}

}  // namespace awq
