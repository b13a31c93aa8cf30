// awq::quantize: options checked, calibration found, the block-by-block flow run, the report written.
#include <chrono>
#include <cmath>
#include <fstream>

#include "api_calibration.h"
#include "api_group_size.h"
#include "api_head.h"
#include "formats/context.h"
#include "quantizer/quantize.h"

namespace awq {
namespace {

// Chosen by measurement, docs/numerics.md "Calibration".
constexpr int kDefaultSequences = 16, kDefaultLength = 512;

int64_t available_memory() {
  std::ifstream info("/proc/meminfo");
  std::string key, unit;
  for (int64_t kb = 0; info >> key >> kb; std::getline(info, unit))
    if (key == "MemAvailable:") return kb * 1024;
  return INT64_MAX;  // no such file: not Linux
}

int64_t float_weights(const BlockSpec& b) {
  int64_t n = 0;
  for (Param p : b.params()) n += b.shape(p).first * std::max<int64_t>(1, b.shape(p).second);
  return n;
}

double matrix_weights(const BlockSpec& b) {
  double n = 0;
  for (Param p : b.params()) n += double(b.shape(p).first) * double(b.shape(p).second);  // a norm has 0 columns
  return n;
}

// Hidden states; a block three times (as read, on the device, a candidate); statistics; for self-calibration the whole
// model and the keys and values of one batch. A quantized head takes two bytes a weight at most, codes and packed, when
// no block is there.
int64_t memory_needed(const ModelSpec& m, const QuantizeOptions& o, bool self) {
  const BlockSpec& b = m.blocks.front();
  const int64_t widest = std::max(b.mlp.hidden, b.attention.q_rows());
  const int64_t solving = int64_t(o.samples) * o.sample_tokens * m.dim * 4 + 3 * float_weights(b) * 4 +
                          3 * widest * widest * 4 + 2048 * widest * 4 * 6;
  const int64_t head = o.quantize_head ? int64_t(m.vocab) * m.dim * 2 : 0;
  if (!self) return std::max(solving, head);
  const int64_t kv =
      int64_t(std::min(o.samples, 32)) * o.sample_tokens * int64_t(m.blocks.size()) * 2 * b.attention.kv_rows() * 2;
  const int64_t writing = (float_weights(b) * int64_t(m.blocks.size()) + int64_t(m.vocab) * m.dim * 2) * 4 + kv;
  return std::max({solving, writing, head});
}

void require_memory(const ModelSpec& m, const QuantizeOptions& o, bool self) {
  const int64_t need = memory_needed(m, o, self), have = available_memory();
  if (need > have)
    fail("quantize",
         "not enough memory: about {:.1f} GB are needed for {} sequences of {} tokens{}, {:.1f} GB are available. {}",
         double(need) / 1e9, o.samples, o.sample_tokens, self ? " that the float model writes itself" : "",
         double(have) / 1e9,
         self ? "Give a text with --calib (then one block is in memory at a time), or fewer --samples"
              : "Use fewer --samples");
}

void require_room(const std::filesystem::path& out, uint64_t bytes) {
  std::error_code error;
  const auto space = std::filesystem::space(std::filesystem::absolute(out).parent_path(), error);
  if (!error && space.available < bytes)
    fail("quantize",
         "{}: about {:.1f} MB will be written, but the disk has {:.1f} MB free. Free some space or choose another disk "
         "with -o",
         out.string(), double(bytes) / 1e6, double(space.available) / 1e6);
}

/// Of a weight: its code, and its part of a scale of 16 bits and of a zero point as wide as a code.
double bits_of(const QuantSpec& q) { return q.bits + (16.0 + q.bits) / q.group_size; }

uint64_t output_bytes(const ModelSpec& m, const QuantSpec& quant, const std::optional<QuantSpec>& head) {
  const double table = double(m.vocab) * m.dim, head_bits = head ? bits_of(*head) : m.tied_embeddings ? 0 : 16;
  double bits = table * (16 + head_bits);
  for (const BlockSpec& b : m.blocks) bits += double(float_weights(b)) * bits_of(quant);
  return uint64_t(bits / 8);
}

/// Mean over the quantized matrices.
double bits_per_weight(const ModelSpec& m, const QuantSpec& quant, const std::optional<QuantSpec>& head) {
  const double head_weights = head ? double(m.vocab) * m.dim : 0;
  double weights = head_weights, bits = head ? head_weights * bits_of(*head) : 0;
  for (const BlockSpec& b : m.blocks) {
    weights += matrix_weights(b);
    bits += matrix_weights(b) * bits_of(quant);
  }
  return bits / weights;
}

// Seen with transformers 5.24, autoawq 0.2.9 and vLLM 0.32: docs/formats.md.
std::string head_warning(const QuantSpec& head) {
  if (head.bits == 4)
    return "transformers ignores a quantized head in this format without a word and runs with random values, AutoAWQ "
           "and vLLM do not load the folder; without --quantize-head all of them do";
  return "only awq.cpp reads this head: no other program has 8 bits for it in this format, and transformers ignores it "
         "without a word and runs with random values; without --quantize-head other programs load the folder";
}

std::string module_name(const ModelSpec& m, int block, Param p) { return find_architecture(m.arch).source(block, p); }

void add_block(const ModelSpec& m, const BlockResult& b, QuantizeReport& report) {
  for (const GroupResult& g : b.solution.groups) {
    GroupReport r{.producer = module_name(m, b.block, g.group.producer),
                  .consumers = {},
                  .alpha = g.chosen.ratio,
                  .weight_term = g.chosen.weight_term,
                  .loss = g.loss,
                  .identity_loss = g.identity_loss,
                  .smallest_scale = g.smallest,
                  .largest_scale = g.largest};
    for (Param p : g.group.consumers) r.consumers.push_back(module_name(m, b.block, p));
    report.groups.push_back(std::move(r));
  }
  for (const LayerResult& l : b.solution.layers)
    report.layers.push_back({module_name(m, b.block, l.param), l.error, l.rounding_error, l.clipped, b.tokens});
  report.worst_fold_error = std::max(report.worst_fold_error, b.fold_error);
}

// Only what is the same for every run with the same input, options and seed: no times, no paths, no thread counts.
nlohmann::ordered_json report_json(const QuantizeReport& r, const QuantizeOptions& o, std::string_view kernels) {
  nlohmann::ordered_json j;
  j["awq_version"] = version();
  j["method"] = o.method;
  j["group_size"] = r.group_size;
  if (!r.group_size_reason.empty()) j["group_size_reason"] = r.group_size_reason;
  if (o.quantize_head) j["head"] = {{"bits", o.quantize_head}, {"method", "rtn"}};
  j["seed"] = o.seed;
  j["kernels"] = kernels;
  j["calibration"] = {{"source", r.calibration.source},
                      {"sha256_of_token_ids", r.calibration.sha256},
                      {"sequences", r.calibration.sequences},
                      {"sequence_tokens", r.calibration.sequence_tokens},
                      {"texts", r.calibration.texts},
                      {"tokens_read", r.calibration.tokens_read},
                      {"tokens_unused", r.calibration.tokens_unused}};
  if (!r.left_out.empty()) j["left_out"] = r.left_out;
  j["worst_fold_error"] = r.worst_fold_error;
  for (const GroupReport& g : r.groups)
    j["scales"].push_back({{"producer", g.producer},
                           {"consumers", g.consumers},
                           {"alpha", g.alpha},
                           {"weight_term", g.weight_term},
                           {"loss", g.loss},
                           {"loss_without_scales", g.identity_loss},
                           {"smallest", g.smallest_scale},
                           {"largest", g.largest_scale}});
  for (const LayerReport& l : r.layers)
    j["layers"].push_back({{"name", l.name},
                           {"relative_error", l.error},
                           {"relative_error_of_rounding", l.rounding_error},
                           {"groups_clipped", l.clipped},
                           {"tokens", l.tokens}});
  return j;
}

class Job {
 public:
  Job(const std::filesystem::path& model, const std::filesystem::path& out, QuantizeOptions options,
      const OnProgress& progress)
      : options_(std::move(options)),
        progress_(progress),
        method_(find_method(options_.method).make()),
        source_(Checkpoint::open(model)),
        out_(out),
        device_(options_.device) {
    if (options_.samples < 0 || options_.sample_tokens < 0) fail("quantize", "--samples and --tokens must be positive");
    if (!options_.samples) options_.samples = kDefaultSequences;
    if (!options_.sample_tokens) options_.sample_tokens = std::min(kDefaultLength, source_->spec().max_context);
    if (options_.sample_tokens < 32) fail("quantize", "--tokens {}: expected at least 32", options_.sample_tokens);
    require_context(*source_, "quantize", fmt::format("--tokens {}", options_.sample_tokens), options_.sample_tokens);
  }

  QuantizeReport run() {
    const auto start = std::chrono::steady_clock::now();
    const ModelSpec& spec = source_->spec();
    const GroupChoice group = choose_group(spec, options_.group_size, "quantize");
    report_.group_size = group.size;
    report_.group_size_reason = group.reason;
    const QuantSpec quant{.bits = 4, .group_size = group.size, .scale_dtype = DType::f16};
    const std::optional<QuantSpec> head = choose_head(spec, options_.quantize_head, group.size, "quantize");
    if (head) report_.warnings.push_back(head_warning(*head));
    report_.bits_per_weight = bits_per_weight(spec, quant, head);
    if (method_->needs_calibration()) require_memory(spec, options_, options_.calibration.empty());
    require_room(out_, output_bytes(spec, quant, head));
    const std::unique_ptr<CheckpointSink> sink = create_sink(quant, head.has_value());
    CalibrationSet calibration = method_->needs_calibration() ? calibration_set() : CalibrationSet{};
    report_.calibration = calibration.report;
    for (const BlockResult& b : quantize_blocks({*source_,
                                                 *sink,
                                                 *method_,
                                                 quant,
                                                 head,
                                                 calibration.sequences,
                                                 {},
                                                 *device_.backend,
                                                 host(),
                                                 flow_progress()}))
      add_block(spec, b, report_);
    report_.left_out = source_->left_out();
    for (const SideFile& f : source_->side_files()) sink->put_side_file(f);
    sink->put_side_file({"awq-report.json", report_json(report_, options_, device_.kernels.name).dump(1) + "\n", {}});
    sink->finish();
    measure();
    report_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return std::move(report_);
  }

 private:
  Host host() { return {device_.pool, device_.kernels}; }

  std::unique_ptr<CheckpointSink> create_sink(const QuantSpec& quant, bool own_head) {
    nlohmann::json config = source_->config();
    ModelSpec spec = source_->spec();
    if (own_head) config["tie_word_embeddings"] = spec.tied_embeddings = false;
    for (const Format& f : formats())
      if (f.name == "autoawq") return f.create(out_, config, spec, quant);
    fail("quantize", "this build cannot write the autoawq format");
  }

  CalibrationSet calibration_set() {
    const TextSide text(*source_);
    if (!options_.calibration.empty())
      return read_calibration(options_.calibration, text, options_.samples, options_.sample_tokens);
    return self_calibration(device_, *source_, text, options_.samples, options_.sample_tokens, options_.temperature,
                            options_.seed, progress_);
  }

  std::function<void(const QuantizeProgress&)> flow_progress() const {
    return [this](const QuantizeProgress& p) {
      if (progress_ && !progress_({p.stage, p.block, p.blocks, p.last_error})) throw Cancelled();
    };
  }

  void measure() {
    for (const TensorInfo& t : source_->tensors()) report_.bytes_in += t.bytes;
    for (const TensorInfo& t : Checkpoint::open(out_)->tensors()) report_.bytes_out += t.bytes;
  }

  QuantizeOptions options_;
  const OnProgress& progress_;
  std::unique_ptr<Method> method_;
  std::unique_ptr<Checkpoint> source_;
  std::filesystem::path out_;
  Device device_;
  QuantizeReport report_;
};

}  // namespace

std::string_view version() { return AWQ_VERSION; }

std::vector<MethodInfo> quantize_methods() {
  std::vector<MethodInfo> m;
  for (const MethodEntry& e : methods()) m.push_back({e.name, e.summary});
  return m;
}

QuantizeReport quantize(const std::filesystem::path& model, const std::filesystem::path& out,
                        const QuantizeOptions& options, const OnProgress& progress) {
  if (!options.device.kv.empty())
    fail("quantize",
         "a KV cache of type \"{}\" was asked for, but calibration keeps keys and values in f32; leave it out",
         options.device.kv);
  if (!options.device.activations.empty())
    fail("quantize", "activations of type \"{}\" were asked for, but the float model is run as it is; leave it out",
         options.device.activations);
  return Job(model, out, options, progress).run();
}

}  // namespace awq
