#include "api_job.h"

#include <sys/stat.h>

#include "api_format.h"
#include "api_group_size.h"
#include "api_head.h"
#include "api_judge.h"
#include "api_sensitivity.h"
#include "base/memory.h"
#include "base/sha256.h"
#include "formats/context.h"
#include "formats/params.h"
#include "io/file.h"
#include "quantizer/prompts.h"

namespace awq {
namespace {

namespace fs = std::filesystem;

/// In 16 bits: norms and routers.
double float_weights(const BlockSpec& b) {
  double n = 0;
  for (Param p : b.params())
    if (!is_rounded(p.role)) n += double(b.shape(p).first) * double(std::max<int64_t>(1, b.shape(p).second));
  return n;
}

/// The sum over matrices of their weights times `f` of their columns.
template <class F>
double matrix_sum(const BlockSpec& b, const F& f) {
  double n = 0;
  for (Param p : b.params())
    if (is_rounded(p.role)) n += double(b.shape(p).first) * double(b.shape(p).second) * f(b.shape(p).second);
  return n;
}

double matrix_weights(const BlockSpec& b) {
  return matrix_sum(b, [](int64_t) { return 1.0; });
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

std::shared_ptr<const SearchSource> search_of(const QuantizeOptions& o, const Checkpoint& source) {
  if (o.load_search.empty()) return nullptr;
  if (!find_method(o.method).make()->folds())
    fail("quantize", "--load-search {}: the method {} uses no scales; leave one of them out", o.load_search.string(),
         o.method);
  if (o.method == "awq+")
    fail("quantize", "--load-search {}: a search has no codes, which awq+ refines; leave out --method",
         o.load_search.string());
  return SearchSource::open(o.load_search, source);
}

void add_calibration(const JobSetup& job, Fingerprint& f) {
  const QuantizeOptions& o = job.options;
  f.emplace_back("--samples", std::to_string(o.samples));
  f.emplace_back("--tokens", std::to_string(o.sample_tokens));
  f.emplace_back("--mask-prompts", std::to_string(o.mask_prompts));
  f.emplace_back("--no-token-weights", std::to_string(!o.token_weights));
  std::string texts = job.own_text() ? "the model's own" : "";
  for (const CalibrationSource& s : o.calibration)
    texts += fmt::format("{}={} ", sha256_of(read_text(s.file)), s.weight);
  f.emplace_back("the text of --calib", texts);
  if (!job.own_text() && !job.writes_gate_text()) return;
  f.emplace_back("--temperature", fmt::format("{}", o.temperature));
  f.emplace_back("--seed", std::to_string(o.seed));
}

/// 0 where there is none: reading it says so.
int64_t size_of_file(const fs::path& file) {
  std::error_code error;
  const auto size = fs::file_size(file, error);
  return error ? 0 : int64_t(size);
}

std::string place_of(const fs::path& p) { return p.empty() ? "left out" : fs::absolute(p).lexically_normal().string(); }

std::string amount(double bytes) {
  return bytes < 1e9 ? fmt::format("{:.1f} MB", bytes / 1e6) : fmt::format("{:.2f} GB", bytes / 1e9);
}

}  // namespace

// The best method: its time is within five times that of awq (docs/numerics.md).
QuantizeOptions with_method(QuantizeOptions o) {
  if (o.method.empty()) o.method = o.variant == "ours" && o.load_search.empty() ? "awq+" : "awq";
  return o;
}

JobSetup::JobSetup(std::unique_ptr<Checkpoint> model, QuantizeOptions o)
    : options(with_method(std::move(o))),
      source(std::move(model)),
      search(search_of(options, *source)),
      method(search ? make_replay(search) : make_method(options.method, options.variant)),
      device(options.device),
      statistics(cpu_backend(device.pool, device.kernels, Activations::int16, Tiles::rough)) {
  complete_calibration(options, *source, "quantize");
  if (options.answers < 0) options.answers = own_text() ? kAnswers : 0;
  check_options();
  check_judging();
  const GroupChoice group = choose_group_or_rows(spec(), options.group_size, "quantize");
  const FormatChoice choice = choose_format("quantize", options.format, options.target, "autoawq");
  choice.check_group("quantize", "--group-size", group.size);
  format = choice.format;
  quant = spec_to_quantize(*format, {.bits = options.bits,
                                     .group_size = group.size,
                                     .scale_dtype = scale_type("quantize", options.scales),
                                     .symmetric = options.symmetric,
                                     .portable_scales = options.portable_scales});
  require_units(*format, spec());
  choice.check_devices("quantize", spec(), options.tensor_parallel, [&](int block, Param p) {
    return std::optional(quant.of_width(spec().blocks[size_t(block)].shape(p).second));
  });
  group_size_reason = group.reason;
  if (options.quantize_head && choice.target)
    fail("quantize", "--quantize-head {}: {} does not run it, see docs/formats.md; leave it out", options.quantize_head,
         choice.target->name);
  if (options.quantize_head && format->name != "autoawq")
    fail("quantize", "--quantize-head {}: only autoawq has it, not {}; leave it out", options.quantize_head,
         format->name);
  head = choose_head(spec(), options.quantize_head, quant, "quantize");
}

void JobSetup::check_options() const {
  const QuantizeOptions& o = options;
  if (o.resume && o.restart) fail("quantize", "--resume goes on with a job and --restart throws it away; give one");
  if (o.keep < 0) fail("quantize", "--keep {}: expected a number of layers", o.keep);
  if (o.portable_scales && o.variant != "ours")
    fail("quantize", "--portable-scales: --variant {} rounds scales as that program does; leave one of them out",
         o.variant);
  if (!o.token_weights && !method->weighs_tokens())
    fail("quantize", "--no-token-weights: the method {} weighs no tokens; leave it out", o.method);
  if (o.keep && o.budget != 0) fail("quantize", "--keep and --budget exclude each other; give one");
  if (search && !o.calibration.empty() && !keeps())
    fail("quantize", "--load-search {}: the scales are there already, and nothing is calibrated; leave out --calib",
         o.load_search.string());
  if (o.save_search.empty()) return;
  if (search || !method->folds())
    fail("quantize", "--save-search {}: nothing is searched here; leave out --load-search, or take --method awq",
         o.save_search.string());
  if (std::error_code ignored; !o.resume && fs::exists(o.save_search, ignored))
    fail("write", "{} exists already; remove it or choose another name", o.save_search.string());
}

// What would fail after hours fails before them.
void JobSetup::check_judging() const {
  const QuantizeOptions& o = options;
  if (o.max_kl && !(*o.max_kl >= 0)) fail("quantize", "--max-kl {}: expected a number of nats, 0 or more", *o.max_kl);
  if (o.min_top1 && !(*o.min_top1 >= 0 && *o.min_top1 <= 1))
    fail("quantize", "--min-top1 {}: expected a share between 0 and 1", *o.min_top1);
  if (!o.gate_text.empty() && !gated())
    fail("quantize", "--gate-text {}: there is no gate; give --max-kl or --min-top1, too", o.gate_text.string());
  const int prompts = int(calibration_prompts().size());
  if (o.answers > prompts) fail("quantize", "--answers {}: there are {} prompts", o.answers, prompts);
  if (o.answers || writes_gate_text()) TextSide{*source};  // throws where there is no tokenizer
}

bool JobSetup::weighs() const { return method->weighs_tokens() && options.token_weights && can_weigh(spec()); }

JobShape JobSetup::shape() const {
  const int writing = own_text() ? options.samples : 0, held_out = writes_gate_text() ? kGateWindows : 0;
  return {.source = *source,
          .dev = *device.backend,
          .spec = quant,
          .running = running_type(device.kernels),
          .head = head,
          .calibrated = calibrated(),
          .folds = method->folds(),
          .extra = [this](int64_t cols) { return method->extra_bytes(cols); },
          .tokenizer_bytes = tokenizer_bytes(),
          .largest_text = needs_text() || gated() ? largest_text() : 0,
          .sequences = options.samples,
          .length = options.sample_tokens,
          .text_sequences = std::max(writing, held_out),
          .text_length = std::max(writing ? options.sample_tokens : 0, held_out ? gate_window(spec()) : 0),
          .gated = gated(),
          .answers = options.answers,
          .weighs = weighs(),
          .keeps = keeps(),
          .calibration = {}};
}

int64_t JobSetup::tokenizer_bytes() const {
  int64_t bytes = 0;
  for (const SideFile& f : source->side_files())
    if (f.name.starts_with("tokenizer.")) bytes += f.path.empty() ? int64_t(f.bytes.size()) : size_of_file(f.path);
  return bytes;
}

int64_t JobSetup::largest_text() const {
  int64_t bytes = options.gate_text.empty() ? 0 : size_of_file(options.gate_text);
  for (const CalibrationSource& s : options.calibration) bytes = std::max(bytes, size_of_file(s.file));
  return bytes;
}

uint64_t JobSetup::output_bytes() const {
  const double table = double(spec().vocab) * spec().dim, head_bits = head ? awq::bits_per_weight(*head, spec().dim)
                                                                      : spec().tied_embeddings ? 0
                                                                                               : 16;
  double bits = table * (16 + head_bits);
  if (const auto& own = spec().own_input)
    bits += 16.0 * (double(spec().vocab) + spec().dim) * own->width * double(spec().blocks.size());
  for (const BlockSpec& b : spec().blocks) bits += matrix_weights(b) * bits_of_blocks() + float_weights(b) * 16;
  uint64_t others = 0;
  for (const std::string& name : spec().carried) others += source->carried(name).bytes();
  return uint64_t(bits / 8) + others;
}

double JobSetup::quantized_weights() const {
  double weights = head ? double(spec().vocab) * spec().dim : 0;
  for (const BlockSpec& b : spec().blocks) weights += matrix_weights(b);
  return weights;
}

double JobSetup::bits_of_blocks() const {
  const QuantSpec stored = stored_spec(*format, quant);
  double weights = 0, bits = 0;
  for (const BlockSpec& b : spec().blocks) {
    weights += matrix_weights(b);
    bits += matrix_sum(b, [&](int64_t cols) { return awq::bits_per_weight(stored, cols); });
  }
  return bits / weights;
}

double JobSetup::bits_per_weight() const {
  const double of_head = head ? double(spec().vocab) * spec().dim : 0, all = quantized_weights(),
               bits = bits_of_blocks();
  return ((all - of_head) * bits + (head ? of_head * awq::bits_per_weight(*head, spec().dim) : 0)) / all;
}

Fingerprint fingerprint_of(const JobSetup& job) {
  const QuantizeOptions& o = job.options;
  Fingerprint f = {{"the version of awq", std::string(version())},
                   {"the kernel set", job.device.kernels.name},
                   {"config.json", sha256_of(job.source->config().dump())},
                   {"the list of tensors", hash_of_tensors(*job.source)}};
  for (const fs::path& file : job.source->weight_files()) add_file(f, file);
  f.emplace_back("the tokenizer or another side file", hash_of_side_files(*job.source));
  f.emplace_back("--method", o.method);
  f.emplace_back("--format", job.format->name);
  f.emplace_back("--variant", o.variant);
  f.emplace_back("--bits", std::to_string(o.bits));
  f.emplace_back("--group-size", std::to_string(job.quant.group_size));
  f.emplace_back("--symmetric", std::to_string(job.quant.symmetric));
  f.emplace_back("--scales", o.scales);
  f.emplace_back("--portable-scales", std::to_string(o.portable_scales));
  f.emplace_back("--quantize-head", std::to_string(o.quantize_head));
  f.emplace_back("--keep", std::to_string(o.keep));
  f.emplace_back("--budget", fmt::format("{}", o.budget));
  f.emplace_back("--save-search", place_of(o.save_search));
  if (!o.load_search.empty()) add_file(f, o.load_search);
  if (job.needs_text()) add_calibration(job, f);
  f.emplace_back("--max-kl", o.max_kl ? fmt::format("{}", *o.max_kl) : "left out");
  f.emplace_back("--min-top1", o.min_top1 ? fmt::format("{}", *o.min_top1) : "left out");
  if (job.gated())
    f.emplace_back("the text of --gate-text",
                   o.gate_text.empty() ? "the model's own" : sha256_of(read_text(o.gate_text)));
  f.emplace_back("--answers", std::to_string(o.answers));
  f.emplace_back("--scratch", place_of(o.scratch));
  return f;
}

std::vector<std::pair<std::string, int64_t>> stages_of(const JobMemory& need) {
  std::vector<std::pair<std::string, int64_t>> stages;
  for (const auto& [name, stage] : {std::pair("read", &JobMemory::read),
                                    {"text", &JobMemory::text},
                                    {"weigh", &JobMemory::weigh},
                                    {"keep", &JobMemory::kept},
                                    {"outer", &JobMemory::outer},
                                    {"load", &JobMemory::load},
                                    {"forward", &JobMemory::forward},
                                    {"search", &JobMemory::search},
                                    {"clip", &JobMemory::clip},
                                    {"check", &JobMemory::check},
                                    {"judge", &JobMemory::judge}})
    stages.emplace_back(name, need.*stage ? need.base + need.*stage : 0);
  return stages;
}

int64_t allowed_memory(const QuantizeOptions& options) {
  return options.max_ram ? options.max_ram : available_memory() + resident_memory();
}

void require_memory(const JobSetup& job, const JobMemory& need) {
  const int64_t allowed = allowed_memory(job.options);
  if (need.peak() <= allowed) return;
  JobMemory given = need;
  given.read = given.text = given.kept = given.judge = 0;
  const bool whole = given.peak() < need.peak();
  const int64_t most = std::max({need.read, need.text, need.kept, need.judge});
  const char* why = !whole              ? ""
                    : need.kept == most ? " to measure all layers for --keep or --budget"
                    : need.read == most ? " to read and tokenize the largest text"
                    : need.text == most ? " where the model writes its own text"
                                        : " where both models are measured or answer";
  const std::string way_out =
      whole ? fmt::format(
                  "With a small text given by --calib and none of --keep, --budget, --max-kl, --min-top1 and --answers "
                  "{} would do",
                  amount(double(given.peak())))
            : "One block of the model and the statistics of its inputs must fit; no option needs less";
  if (job.options.max_ram)
    fail("quantize", "--max-ram {}: at least {} are needed{}. {}", amount(double(allowed)), amount(double(need.peak())),
         why, way_out);
  fail("quantize", "not enough memory: {} are needed{}, {} are available. {}", amount(double(need.peak())), why,
       amount(double(allowed)), way_out);
}

uint64_t free_room(const fs::path& folder) {
  std::error_code error;
  const auto space = fs::space(fs::absolute(folder).parent_path(), error);
  return error ? UINT64_MAX : space.available;
}

void require_room(const fs::path& folder, uint64_t bytes, std::string_view option) {
  if (const uint64_t room = free_room(folder); room < bytes)
    fail("quantize",
         "{}: about {} will be written, but the disk has {} free. Free some space or choose another disk "
         "with {}",
         folder.string(), amount(double(bytes)), amount(double(room)), option);
}

}  // namespace awq
