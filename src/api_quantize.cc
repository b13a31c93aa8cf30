// awq::quantize: options checked, calibration found, the block-by-block flow run, the report written.
#include <chrono>
#include <cmath>
#include <fstream>

#include "api_calibration.h"
#include "api_group_size.h"
#include "api_head.h"
#include "api_sensitivity.h"
#include "formats/params.h"
#include "quantizer/quantize.h"
#include "quantizer/search_source.h"

namespace awq {
namespace {

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
         double(need) / 1e9, o.samples, o.sample_tokens, self ? " and the whole float model" : "", double(have) / 1e9,
         self ? "Give a text with --calib and neither --keep nor --budget (then one block is in memory at a time), or "
                "fewer --samples"
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

uint64_t output_bytes(const ModelSpec& m, const QuantSpec& quant, const std::optional<QuantSpec>& head) {
  const double table = double(m.vocab) * m.dim, head_bits = head ? bits_per_weight(*head) : m.tied_embeddings ? 0 : 16;
  double bits = table * (16 + head_bits);
  for (const BlockSpec& b : m.blocks) bits += double(float_weights(b)) * bits_per_weight(quant);
  return uint64_t(bits / 8);
}

/// Mean over the quantized matrices.
double mean_bits(const ModelSpec& m, const QuantSpec& quant, const std::optional<QuantSpec>& head) {
  const double head_weights = head ? double(m.vocab) * m.dim : 0;
  double weights = head_weights, bits = head ? head_weights * bits_per_weight(*head) : 0;
  for (const BlockSpec& b : m.blocks) {
    weights += matrix_weights(b);
    bits += matrix_weights(b) * bits_per_weight(quant);
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

void add_block(const ModelSpec& m, const BlockResult& b, QuantizeReport& report) {
  for (const GroupResult& g : b.solution.groups) {
    GroupReport r{.producer = base_name(m, b.block, *g.group.producer),
                  .consumers = {},
                  .alpha = g.chosen.ratio,
                  .weight_term = g.chosen.weight_term,
                  .loss = g.loss,
                  .identity_loss = g.identity_loss,
                  .smallest_scale = g.smallest,
                  .largest_scale = g.largest};
    for (Param p : g.group.consumers) r.consumers.push_back(base_name(m, b.block, p));
    report.groups.push_back(std::move(r));
  }
  for (const LayerResult& l : b.solution.layers)
    report.layers.push_back({base_name(m, b.block, l.param), l.error, l.rounding_error, l.clipped, b.tokens});
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
  j["calibration"] = to_json(r.calibration);
  if (!r.search.empty()) j["search"] = r.search;
  for (const KeptReport& k : r.kept)
    j["kept"].push_back({{"name", k.name}, {"kl_if_quantized_alone", k.kl}, {"extra_bytes", k.extra_bytes}});
  if (!r.left_out.empty()) j["left_out"] = r.left_out;
  j["worst_fold_error"] = r.worst_fold_error;
  for (const GroupReport& g : r.groups) {
    nlohmann::ordered_json scales = {{"producer", g.producer},
                                     {"consumers", g.consumers},
                                     {"alpha", g.alpha},
                                     {"weight_term", g.weight_term},
                                     {"loss", g.loss},
                                     {"loss_without_scales", g.identity_loss},
                                     {"smallest", g.smallest_scale},
                                     {"largest", g.largest_scale}};
    if (!r.search.empty())  // which computed none
      for (const char* key : {"loss", "loss_without_scales"}) scales.erase(key);
    j["scales"].push_back(std::move(scales));
  }
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
        source_(Checkpoint::open(model)),
        search_(search()),
        method_(method()),
        out_(out),
        device_(options_.device) {
    complete_calibration(options_, *source_, "quantize");
    check_options();
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
    report_.bits_per_weight = mean_bits(spec, quant, head);
    describe_search(quant);
    if (method_->needs_calibration() || keeps())
      require_memory(spec, options_, options_.calibration.empty() || keeps());
    require_room(out_, output_bytes(spec, quant, head));
    const std::unique_ptr<CheckpointSink> sink = create_sink(quant, head.has_value());
    CalibrationSet calibration;
    if (method_->needs_calibration() || keeps()) calibration = calibration_set(device_, *source_, options_, progress_);
    report_.calibration = calibration.report;
    report_.warnings.insert(report_.warnings.end(), calibration.warnings.begin(), calibration.warnings.end());
    if (keeps()) keep(choose_kept(device_, *source_, *method_, quant, calibration, options_, progress_), quant);
    std::optional<SearchWriter> saved;
    if (!options_.save_search.empty())
      saved.emplace(options_.save_search, *source_, quant, options_.method, calibration.report.sha256);
    for (const BlockResult& b : quantize_blocks({*source_,
                                                 *sink,
                                                 *method_,
                                                 quant,
                                                 head,
                                                 calibration.sequences,
                                                 {.counted = calibration.counted},
                                                 *device_.backend,
                                                 host(),
                                                 flow_progress(),
                                                 [&](int block, const Solution&s) {
                                                   if (saved) saved->put(block, s);
                                                 },
                                                 kept_}))
      add_block(spec, b, report_);
    report_.left_out = source_->left_out();
    for (const SideFile& f : source_->side_files()) sink->put_side_file(f);
    sink->put_side_file({"awq-report.json", report_json(report_, options_, device_.kernels.name).dump(1) + "\n", {}});
    if (saved) saved->finish();
    sink->finish();
    measure();
    report_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return std::move(report_);
  }

 private:
  Host host() { return {device_.pool, device_.kernels}; }
  bool keeps() const { return options_.keep || options_.budget != 0; }

  std::unique_ptr<Method> method() const {
    return search_ ? make_replay(search_) : find_method(options_.method).make();
  }

  std::shared_ptr<const SearchSource> search() const {
    if (options_.load_search.empty()) return nullptr;
    if (!find_method(options_.method).make()->needs_calibration())
      fail("quantize", "--load-search {}: the method {} uses no scales; leave one of them out",
           options_.load_search.string(), options_.method);
    return SearchSource::open(options_.load_search, *source_);
  }

  void check_options() const {
    if (options_.keep < 0) fail("quantize", "--keep {}: expected a number of layers", options_.keep);
    if (options_.keep && options_.budget != 0) fail("quantize", "--keep and --budget exclude each other; give one");
    if (!options_.load_search.empty() && !options_.calibration.empty() && !keeps())
      fail("quantize", "--load-search {}: the scales are there already, and nothing is calibrated; leave out --calib",
           options_.load_search.string());
    if (!options_.save_search.empty() && !method_->needs_calibration())
      fail("quantize", "--save-search {}: nothing is searched here; leave out --load-search, or take --method awq",
           options_.save_search.string());
    if (!options_.save_search.empty()) require_absent(options_.save_search);
  }

  void describe_search(const QuantSpec& quant) {
    if (!search_) return;
    report_.search = options_.load_search.filename().string();
    if (search_->group_size() && search_->group_size() != quant.group_size)
      report_.warnings.push_back(
          fmt::format("{} was searched for groups of {}, not {}; a search of their own would be closer to the original",
                      report_.search, search_->group_size(), quant.group_size));
  }

  void keep(const std::vector<KeepUnit>& units, const QuantSpec& quant) {
    const ModelSpec& spec = source_->spec();
    double extra = 0, weights = 0;
    for (const BlockSpec& b : spec.blocks) weights += matrix_weights(b);
    for (const KeepUnit& u : units)
      for (size_t i = 0; i < u.layers.size(); ++i) {
        const auto [block, p] = u.layers[i];
        const double bits = double(shape_of(spec, block, p).elements()) * (16 - bits_per_weight(quant));
        kept_.insert({block, p});
        report_.kept.push_back({base_name(spec, block, p), u.kl[i], uint64_t(bits / 8)});
        extra += bits;
      }
    report_.bits_per_weight += extra / (weights + (options_.quantize_head ? double(spec.vocab) * spec.dim : 0));
  }

  std::unique_ptr<CheckpointSink> create_sink(const QuantSpec& quant, bool own_head) {
    nlohmann::json config = source_->config();
    ModelSpec spec = source_->spec();
    if (own_head) config["tie_word_embeddings"] = spec.tied_embeddings = false;
    for (const Format& f : formats())
      if (f.name == "autoawq") return f.create(out_, config, spec, quant);
    fail("quantize", "this build cannot write the autoawq format");
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
  std::unique_ptr<Checkpoint> source_;
  std::shared_ptr<const SearchSource> search_;
  std::unique_ptr<Method> method_;
  std::filesystem::path out_;
  Device device_;
  QuantizeReport report_;
  std::set<std::pair<int, Param>> kept_;
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
