// awq::plan: what a job will take, by computing one block of it.
#include <algorithm>
#include <random>

#include "api_job.h"
#include "base/memory.h"
#include "engine/sampler.h"
#include "engine/self_calibration.h"
#include "formats/config_only.h"
#include "formats/load.h"
#include "formats/params.h"
#include "io/temporary_folder.h"
#include "model/stream.h"

namespace awq {
namespace {

namespace fs = std::filesystem;

double seconds(const StageCost& c) { return c.seconds; }

/// Takes nothing: a block is timed without its file.
class NoSink final : public CheckpointSink {
 public:
  void put(int, Param, const Weight&) override {}
  void put_bias(int, Param, const Tensor&) override {}
  void put_side_file(const SideFile&) override {}
  void finish() override {}
  nlohmann::json state() const override { return {}; }
  void resume(const nlohmann::json&) override {}
  void sync() override {}
};

/// They need a tokenizer.
QuantizeOptions without_answers(QuantizeOptions o) {
  if (o.answers < 0) o.answers = 0;
  return o;
}

std::vector<std::vector<int32_t>> random_tokens(int sequences, int length, int vocab) {
  std::mt19937 rng(1);
  std::vector<std::vector<int32_t>> tokens(static_cast<size_t>(sequences), std::vector<int32_t>(size_t(length)));
  for (auto& s : tokens)
    for (int32_t& t : s) t = int32_t(rng() % uint32_t(vocab));
  return tokens;
}

class Planner {
 public:
  Planner(const fs::path& model, const QuantizeOptions& options, const OnProgress& progress)
      : has_weights_(!is_config_only(model)),
        setup_(has_weights_ ? JobSetup(model, options) : JobSetup(open_config_only(model), without_answers(options))),
        progress_(progress) {}

  PlanReport run(const fs::path& out) {
    PlanReport r;
    r.blocks = int(setup_.spec().blocks.size());
    r.parameters = parameter_count(setup_.spec());
    r.timed = has_weights_;
    memory(r);
    disks(out, r);
    if (!has_weights_) return r;
    tell("time a block");
    r.block_seconds = block_seconds();
    if (setup_.own_text()) {
      tell("time a token");
      r.text_seconds = text_seconds();
    }
    if (setup_.weighs()) {
      tell("time a block back");
      r.weigh_seconds = weigh_seconds();
    }
    r.seconds = r.text_seconds + r.weigh_seconds + r.block_seconds * r.blocks;
    return r;
  }

 private:
  void tell(std::string_view stage) const {
    if (progress_ && !progress_({stage, 0, 1})) throw Cancelled();
  }

  void memory(PlanReport& r) const {
    JobMemory need = memory_of(setup_.shape());
    need.base = resident_memory();
    r.peak_memory = need.peak();
    r.allowed_memory = allowed_memory(setup_.options);
    r.memory = stages_of(need);
    try {
      require_memory(setup_, need);
    } catch (const Error& e) {
      r.misfits.emplace_back(e.what());
    }
  }

  void disks(const fs::path& out, PlanReport& r) const {
    const fs::path& scratch = setup_.options.scratch;
    r.output_bytes = setup_.output_bytes();
    r.scratch_bytes = uint64_t(scratch_bytes(setup_.shape()));
    r.free_output = free_room(out);
    r.free_scratch = scratch.empty() ? r.free_output : free_room(scratch / "x");
    try {
      require_room(out, r.output_bytes + (scratch.empty() ? r.scratch_bytes : 0), "-o");
      if (!scratch.empty()) require_room(scratch / "x", r.scratch_bytes, "--scratch");
    } catch (const Error& e) {
      r.misfits.emplace_back(e.what());
    }
  }

  int timed_sequences() const {
    const int length = setup_.options.sample_tokens;
    return std::min(setup_.options.samples, std::max(4, (1024 + length - 1) / length));
  }

  void make_hidden(const fs::path& folder, std::optional<HiddenFiles>& hidden) {
    const int length = setup_.options.sample_tokens, sequences = timed_sequences();
    hidden.emplace(folder, int64_t(sequences) * length, length, stream_width(setup_.spec()));
    embed_tokens(*setup_.statistics, *setup_.source, random_tokens(sequences, length, setup_.spec().vocab), *hidden);
  }

  // Blocks are loaded for each way and each part of the tokens that is weighed together.
  double weigh_seconds() {
    const TemporaryFolder scratch;
    std::optional<HiddenFiles> hidden;
    make_hidden(scratch.path(), hidden);
    const WeighCosts c = try_weigh({.source = *setup_.source,
                                    .dev = *setup_.statistics,
                                    .host = setup_.host(),
                                    .hidden = hidden->around(0, true),
                                    .folder = scratch.path(),
                                    .at_once = hidden->tokens(),
                                    .progress = {},
                                    .finished = {}});
    const int64_t tokens = int64_t(setup_.options.samples) * setup_.options.sample_tokens,
                  at_once = weighed_at_once(setup_.spec(), tokens, setup_.options.sample_tokens);
    const double blocks = double(setup_.spec().blocks.size()), parts = double((tokens + at_once - 1) / at_once),
                 more = double(setup_.options.samples) / timed_sequences();
    return parts * (blocks * seconds(c.load) + seconds(c.head_load)) +
           more * (blocks * (seconds(c.forward) + seconds(c.back)) + seconds(c.head));
  }

  // The forward pass and the statistics grow with the tokens; the rest does not, once the samples are full.
  double block_seconds() {
    const int sequences = timed_sequences();
    const TemporaryFolder scratch;
    std::optional<HiddenFiles> hidden;
    if (setup_.calibrated()) make_hidden(scratch.path(), hidden);
    NoSink sink;
    const BlockCosts c = try_block({.source = *setup_.source,
                                    .sink = sink,
                                    .method = *setup_.method,
                                    .spec = setup_.quant,
                                    .head = {},
                                    .hidden = hidden ? &*hidden : nullptr,
                                    .calibration = {},
                                    .dev = *setup_.statistics,
                                    .host = setup_.host(),
                                    .progress = [this](const QuantizeProgress& p) { tell(p.stage); },
                                    .finished = {}},
                                   0)
                             .costs;
    return seconds(c.load) + seconds(c.search) + seconds(c.clip) + seconds(c.check) +
           (seconds(c.forward) + seconds(c.gram)) * setup_.options.samples / sequences;
  }

  // Of the positions of a sequence the middle one stands for all.
  double text_seconds() {
    const int batch = std::min(setup_.options.samples, SelfCalibrationOptions().batch),
              length = setup_.options.sample_tokens, rounds = (setup_.options.samples + batch - 1) / batch;
    StageCost load, block, head;
    decode(batch, length / 2, load, block);
    sample(batch, head);
    return load.seconds * double(setup_.spec().blocks.size()) +
           double(length - 1) * rounds * (block.seconds * double(setup_.spec().blocks.size()) + head.seconds);
  }

  static constexpr int kSteps = 4;

  /// One block's share of a step, behind `at` tokens.
  void decode(int batch, int at, StageCost& load, StageCost& step) {
    Backend& dev = *setup_.device.backend;
    Block b;
    {
      const Timed timed(load);
      b = upload(dev, load_float_block(*setup_.source, 0, setup_.device.pool));
    }
    std::vector<std::unique_ptr<KvCache>> caches;
    std::vector<Sequence> sequences;
    for (int i = 0; i < batch; ++i) {
      caches.push_back(cache_alone(dev, b.spec, DType::f16));
      const Sequence s{caches.back().get(), 0, at};
      Tensor x = Tensor::zeros({at, stream_width(setup_.spec())}, DType::f32);
      stream_forward(dev, b, {&s, 1}, x);
      sequences.push_back({caches.back().get(), at, 1});
    }
    Tensor x = Tensor::zeros({batch, stream_width(setup_.spec())}, DType::f32);
    stream_forward(dev, b, sequences, x);  // the first is slower
    for (int i = 0; i < kSteps; ++i) {
      for (Sequence& s : sequences) ++s.first;
      const Timed timed(step);
      stream_forward(dev, b, sequences, x);
    }
    step.seconds /= kSteps;
  }

  /// The head and a choice of one token a sequence.
  void sample(int batch, StageCost& step) {
    Backend& dev = *setup_.device.backend;
    const ModelSpec& m = setup_.spec();
    const auto head =
        dev.linear(setup_.source->float_pieces(-1, {m.tied_embeddings ? Role::embed : Role::head}), nullptr);
    Tensor x = dev.empty({batch, m.dim}), logits = dev.empty({batch, m.vocab});
    std::mt19937 rng(1);
    std::normal_distribution<float> normal;
    for (float& v : x.as<float>()) v = normal(rng);
    (*head)(x, logits);
    const Timed timed(step);
    (*head)(x, logits);
    setup_.device.pool.each(batch, [&](int64_t i) {
      Sampler sampler({.temperature = setup_.options.temperature, .seed = uint64_t(i)});
      sampler.sample(logits.as<float>().subspan(size_t(i * m.vocab), size_t(m.vocab)), {}, 0);
    });
  }

  bool has_weights_;
  JobSetup setup_;
  const OnProgress& progress_;
};

}  // namespace

PlanReport plan(const fs::path& model, const fs::path& out, const QuantizeOptions& options,
                const OnProgress& progress) {
  return Planner(model, options, progress).run(out);
}

}  // namespace awq
