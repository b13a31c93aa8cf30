// awq::bench: the machine, the logits, then prompts and decoding as shares of what the machine can do.
#include <algorithm>
#include <chrono>

#include "api_group_size.h"
#include "api_head.h"
#include "awq/awq.h"
#include "base/cpu.h"
#include "bench/cost.h"
#include "bench/logits_check.h"
#include "bench/random_model.h"
#include "bench/shapes.h"
#include "bench/speed.h"
#include "formats/context.h"
#include "formats/params.h"
#include "kernels/ceilings.h"

namespace awq {
namespace {

constexpr struct {
  DType type;
  std::string_view name;
} kTypes[] = {{DType::f32, "f32"}, {DType::bf16, "bf16"}, {DType::i16, "int16"}, {DType::i8, "int8"}};

std::string type_name(DType type) {
  if (type == DType::f16) return "f16";  // of GPUs alone
  for (const auto& t : kTypes)
    if (t.type == type) return std::string(t.name);
  fail("bench", "{} is no type that products are computed in", name_of(type));
}

Spread spread_of(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return {(v[(v.size() - 1) / 2] + v[v.size() / 2]) / 2, v.front(), v.back()};
}

double sum_of(std::span<const double> v) {
  double sum = 0;
  for (const double x : v) sum += x;
  return sum;
}

void require_positive(std::span<const int> values, std::string_view option, int least) {
  if (values.empty()) fail("bench", "{}: no number was given", option);
  for (const int v : values)
    if (v < least) fail("bench", "{} {}: expected at least {}", option, v, least);
}

void check_options(const BenchOptions& o, const Checkpoint& model) {
  require_positive(o.prefill, "--prefill", 1);
  require_positive(o.context, "--context", 0);
  require_positive(o.batch, "--batch", 1);
  require_positive({&o.decode, 1}, "--decode", 1);
  require_positive({&o.repeat, 1}, "--repeat", 1);
  for (const int n : o.prefill) require_context(model, "bench", fmt::format("--prefill {}", n), n);
  for (const int n : o.context)
    require_context(model, "bench", fmt::format("--context {} with --decode {}", n, o.decode), int64_t(n) + o.decode);
}

MatrixType matrix_type(const BenchOptions& o, int group) {
  if (o.weights == "int4") return groups_of(group);
  const bool bf16 = o.weights == "bf16";
  if (!bf16 && o.weights != "f32") fail("bench", "--weights: \"{}\" is not known; give int4, bf16 or f32", o.weights);
  if (o.group_size)
    fail("bench", "--group-size {} is for weights of 4 bits; --weights {} has no groups", o.group_size, o.weights);
  return bf16 ? DType::bf16 : DType::f32;
}

class Bench {
 public:
  Bench(const BenchOptions& o, const OnProgress& progress) : o_(o), progress_(progress), device_(o.device) {}
  ThreadPool& pool() { return device_.pool; }

  BenchReport run(const Checkpoint& checkpoint, const std::string& name) {
    const auto start = std::chrono::steady_clock::now();
    check_options(o_, checkpoint);
    report_.model = name;
    measure_machine();
    load(checkpoint);
    check(checkpoint);
    for (const int n : o_.prefill) add_prefill(n);
    fill_cache();
    for (const int batch : o_.batch) {
      while (int(caches_.size()) < batch) caches_.push_back(caches_.front()->clone());
      caches_.resize(size_t(batch));
      for (const int context : o_.context) add_decode(batch, context);
    }
    finish();
    report_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return std::move(report_);
  }

 private:
  void report(std::string_view stage, int done, int total) const {
    if (progress_ && !progress_({stage, done, total})) throw Cancelled();
  }

  void measure_machine() {
    constexpr int kPasses = 5;
    report("measure the machine", 0, kPasses);
    if (!on_gpu()) {
      read_.emplace(device_.pool);
      for (const auto& t : kTypes) report_.peaks.push_back({std::string(t.name), {}});
    }
    for (int i = 0; i < kPasses; ++i) {
      measure_again();
      report("measure the machine", i + 1, kPasses);
    }
    report_.cpu = cpu_name();
    report_.kernels = device_.backend->kernels();
    report_.threads = device_.pool.size();
    report_.repeat = o_.repeat;
    if (read_) report_.read_bytes = read_->bytes();
  }

  bool on_gpu() const { return device_.backend->name() == "cuda"; }

  /// Before, between and after the measurements: the speed of a shared machine changes within seconds.
  void measure_again() {
    if (on_gpu()) return keep(device_.backend->rates().value());
    read_->pass();
    for (size_t i = 0; i < std::size(kTypes); ++i) {
      const auto rate = kernels::peak_rate(device_.pool, device_.kernels, kTypes[i].type);
      if (rate) report_.peaks[i].rate = std::max(report_.peaks[i].rate.value_or(0), *rate);
    }
  }

  /// Of a GPU: what copies move, bytes read and written, and what our own products reach.
  void keep(const DeviceRates& rates) {
    copies_.push_back(rates.copy);
    report_.read_bytes = rates.copied;
    if (report_.peaks.empty()) report_.peaks.push_back({type_name(rates.type), rates.product});
    report_.peaks[0].rate = std::max(report_.peaks[0].rate.value_or(0), rates.product);
  }

  void load(const Checkpoint& checkpoint) {
    const auto start = std::chrono::steady_clock::now();
    const CountedCheckpoint counted(checkpoint);
    model_ = load_model(*device_.backend, counted, [&](int done, int total) { report("load", done, total); });
    cost_ = counted.cost(kv_type(o_.device.kv, kCacheType));
    report_.load_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    report_.blocks = int(model_.blocks.size());
    report_.context = model_.spec.max_context;
    report_.weights = parameter_count(model_.spec);
    report_.weight_bytes = cost_.weights;
    report_.packed_bytes = model_.bytes_per_token();
    report_.quantization = quantization_of(checkpoint);
    report_.head = head_type(checkpoint);
  }

  void check(const Checkpoint& checkpoint) {
    report("check", 0, 1);
    DeviceOptions portable = o_.device;
    portable.isa = "portable";
    if (!portable.device.empty()) portable.device = portable.activations = "", portable.gpu_layers = 0;
    Device reference(portable);
    const LogitsCheck c = check_logits(*device_.backend, model_, *reference.backend, checkpoint, o_.seed);
    if (!c.agrees())
      fail("bench",
           "the {} kernels' logits differ from the portable kernels' by {:.2g} of the largest, where rounding explains "
           "{:.2g} (first {} blocks, {} tokens): they compute something else, so their speed means nothing. Use --isa "
           "portable, and report this with the CPU's name, {}",
           report_.kernels, c.difference, c.bound, c.blocks, c.tokens, report_.cpu);
    report_.check = {fmt::format("{:016x}", c.hash),
                     fmt::format("{:016x}", c.reference_hash),
                     c.difference,
                     c.bound,
                     c.blocks,
                     c.tokens};
    report("check", 1, 1);
  }

  void add_prefill(int tokens) {
    const std::vector<int32_t> prompt = random_tokens(model_.spec.vocab, size_t(tokens), o_.seed);
    std::vector<double> speeds;
    for (int i = 0; i < o_.repeat; ++i) {
      caches_.clear();
      caches_.push_back(device_.backend->kv_cache(model_.spec.blocks, kv_type(o_.device.kv, kCacheType)));
      speeds.push_back(tokens / prefill_seconds(*device_.backend, model_, *caches_.front(), prompt, [&](int done) {
                         report("prefill", i * tokens + done, o_.repeat * tokens);
                       }));
    }
    filled_ = tokens;
    add({.kind = "prefill", .first = 0, .tokens = tokens, .tokens_per_second = spread_of(speeds), .peak = {}}, tokens,
        double(cost_.prefill_bytes(tokens)) / tokens, cost_.prefill_flops(tokens) / tokens,
        cost_.attention_flops(0, tokens) / tokens);
  }

  /// One sequence of the longest context; the others are copies of it.
  void fill_cache() {
    const int tokens = *std::max_element(o_.context.begin(), o_.context.end());
    if (filled_ >= tokens) return;
    const std::vector<int32_t> prompt = random_tokens(model_.spec.vocab, size_t(tokens), o_.seed);
    prefill(*device_.backend, model_, *caches_.front(), 0, prompt,
            [&](int done) { report("fill the cache", done, tokens); });
  }

  void add_decode(int batch, int context) {
    const int steps = o_.decode, window = std::max(1, steps / 4);
    std::vector<double> speeds, first, last;
    const auto speed = [batch](std::span<const double> s) { return batch * double(s.size()) / sum_of(s); };
    decode(context, 1, [](int) {});  // the caches grow here
    for (int i = 0; i < o_.repeat; ++i) {
      const std::vector<double> s =
          decode(context, steps, [&](int done) { report("decode", i * steps + done, o_.repeat * steps); });
      speeds.push_back(speed(s));
      first.push_back(speed(std::span(s).first(size_t(window))));
      last.push_back(speed(std::span(s).last(size_t(window))));
    }
    double bytes = 0;
    for (int i = 0; i < steps; ++i) bytes += double(cost_.decode_bytes(context + i, batch)) / steps;
    add({.kind = "decode",
         .batch = batch,
         .first = context,
         .tokens = steps,
         .tokens_per_second = spread_of(speeds),
         .first_window = spread_of(first).median,
         .last_window = spread_of(last).median,
         .peak = {}},
        batch, bytes / batch, cost_.decode_flops(1), cost_.attention_flops(context, steps) / steps);
  }

  std::vector<double> decode(int first, int steps, const std::function<void(int)>& on_step) {
    Caches copies;  // for a state does not go back, and steps are repeated
    for (const auto& kv : caches_)
      if (model_.spec.recurrent()) copies.push_back(kv->clone());
    return decode_seconds(*device_.backend, model_, copies.empty() ? caches_ : copies, first, steps, o_.seed, on_step);
  }

  /// Bytes and operations a token, of which `at_once` are computed together.
  void add(BenchResult r, int at_once, double bytes, double flops, double attention) {
    const double giga = 1e-9 * r.tokens_per_second.median;
    r.bytes_per_token = bytes;
    r.gigabytes_per_second = bytes * giga;
    r.gflops = flops * giga;
    r.attention_gflops = attention * giga;
    r.peak = type_name(model_.blocks.front()[Role::down].arithmetic(at_once));
    report_.results.push_back(std::move(r));
    measure_again();
  }

  void finish() {
    const Spread copied = read_ ? Spread{} : spread_of(copies_);
    report_.read_median = read_ ? read_->median() : copied.median;
    report_.read_best = read_ ? read_->best() : copied.highest;
    for (BenchResult& r : report_.results) {
      r.share_of_read = r.gigabytes_per_second / report_.read_median;
      for (const BenchPeak& p : report_.peaks)
        if (p.type == r.peak && p.rate) r.share_of_peak = r.gflops / *p.rate;
    }
  }

  const BenchOptions& o_;
  const OnProgress& progress_;
  Device device_;
  std::optional<kernels::ReadBandwidth> read_;  // of the CPU
  std::vector<double> copies_;                  // GB/s of a GPU
  Model model_;
  Cost cost_;
  Caches caches_;
  int filled_ = 0;  // tokens of the first cache
  BenchReport report_;
};

}  // namespace

std::vector<std::string_view> bench_shapes() { return shape_names(); }

BenchReport bench(const std::filesystem::path& model, const BenchOptions& options, const OnProgress& progress) {
  return Bench(options, progress).run(*Checkpoint::open(model), model.string());
}

BenchReport bench_shape(std::string_view shape, const BenchOptions& options, const OnProgress& progress) {
  const nlohmann::json config = shape_config(shape);
  Bench b(options, progress);
  const ModelSpec spec = find_architecture(config.at("architectures").at(0).get<std::string>()).parse(config);
  const int group = choose_group(spec, options.group_size, "bench").size;
  const auto head = choose_head(spec, options.quantize_head, {.group_size = group}, "bench");
  return b.run(*random_model(config, matrix_type(options, group), head, options.seed, b.pool()), std::string(shape));
}

}  // namespace awq
