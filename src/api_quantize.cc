// awq::quantize: the job's folder, its calibration, the block-by-block flow, the report.
#include <chrono>
#include <sstream>

#include "api_calibration.h"
#include "api_format.h"
#include "api_group_size.h"
#include "api_job.h"
#include "api_judge.h"
#include "api_quantize_report.h"
#include "api_sensitivity.h"
#include "base/cpu.h"
#include "base/memory.h"
#include "formats/params.h"
#include "io/file.h"
#include "io/json.h"
#include "model/stream.h"
#include "quantizer/job_log.h"
#include "report/page.h"

namespace awq {
namespace {

using Json = nlohmann::ordered_json;

// Seen with transformers 5.24, autoawq 0.2.9 and vLLM 0.32: docs/formats.md.
std::string head_warning(const QuantSpec& head) {
  if (head.bits == 4)
    return "transformers ignores a quantized head in this format without a word and runs with random values, AutoAWQ "
           "and vLLM do not load the folder; without --quantize-head all of them do";
  return "only awq.cpp reads this head: no other program has 8 bits for it in this format, and transformers ignores it "
         "without a word and runs with random values; without --quantize-head other programs load the folder";
}

constexpr std::pair<const char*, StageCost BlockCosts::*> kStages[] = {
    {"load", &BlockCosts::load},     {"forward", &BlockCosts::forward}, {"gram", &BlockCosts::gram},
    {"search", &BlockCosts::search}, {"clip", &BlockCosts::clip},       {"check", &BlockCosts::check},
    {"write", &BlockCosts::write}};

Json to_json(const BlockCosts& costs) {
  Json j;
  for (const auto& [name, stage] : kStages) {
    const StageCost& c = costs.*stage;
    Json& s = j[name] = {{"seconds", c.seconds}};
    if (c.operations > 0 && c.seconds > 0) s["gflops"] = c.operations / c.seconds / 1e9;
    if (c.bytes > 0) s["bytes"] = c.bytes;
  }
  return j;
}

void set_stages(const BlockCosts& costs, std::vector<StageReport>& to) {
  to.resize(std::size(kStages));
  for (size_t i = 0; i < to.size(); ++i) {
    const StageCost& c = costs.*kStages[i].second;
    to[i] = {kStages[i].first, c.seconds, c.operations, uint64_t(c.bytes)};
  }
}

JobStart start_of(const QuantizeOptions& o) {
  return o.resume ? JobStart::resume : o.restart ? JobStart::restart : JobStart::fresh;
}

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

class Job {
 public:
  Job(const std::filesystem::path& model, const std::filesystem::path& out, const QuantizeOptions& options,
      const OnProgress& progress)
      : progress_(progress), model_(model), setup_(model, options), folder_(out, options.scratch, start_of(options)) {
    folder_.identify(fingerprint_of(setup_));
    require_rejected_name();
    log_.emplace(options.log.empty() ? folder_.path("log.jsonl") : options.log);
  }

  QuantizeReport run() {
    try {
      begin();
      if (!folder_.stands(folder_.output()) && !folder_.stands(folder_.rejected())) work();
      finish();
      return std::move(report_);
    } catch (const Cancelled&) {
      log_->write("cancelled", {{"blocks_done", done_}});
      throw Cancelled(folder_.worth_resuming() ? left() : "");
    } catch (const std::exception& e) {
      log_->write("error", {{"what", e.what()}, {"blocks_done", done_}});
      if (!folder_.worth_resuming()) throw;
      throw Error(fmt::format("{}. {}", e.what(), left("once that is put right, ")));
    }
  }

 private:
  void require_rejected_name() const {
    if (std::error_code ignored;
        setup_.gated() && std::filesystem::exists(folder_.rejected(), ignored) && !folder_.stands(folder_.rejected()))
      fail("quantize", "{}: exists already, and is where an output would go that misses a gate; remove it",
           folder_.rejected().string());
    if (!setup_.options.gate_text.empty()) gate_tokens(*setup_.source, setup_.options);  // throws if they are too few
  }

  std::string left(std::string_view when = "") const {
    return fmt::format("{} of {} blocks are done and kept in {}: {}the same command with --resume goes on", done_,
                       setup_.spec().blocks.size(), folder_.folder().string(), when);
  }

  void begin() {
    report_.method = setup_.options.method;
    report_.group_size = setup_.quant.group_size;
    report_.group_size_reason = setup_.group_size_reason;
    report_.symmetric = setup_.quant.symmetric;
    if (setup_.head) report_.warnings.push_back(head_warning(*setup_.head));
    if (setup_.method->weighs_tokens() && setup_.options.token_weights && !setup_.weighs())
      report_.warnings.emplace_back(
          "all tokens count alike: gradients, which would say what each does to the output, do not go back through "
          "mixtures of experts, delta nets, gpt-oss' bounded activation and what blocks of Gemma 4 read beside their "
          "input in this version");
    report_.bits_per_weight = setup_.bits_per_weight();
    report_.blocks = int(setup_.spec().blocks.size());
    describe_search();
    state_ = folder_.read("state.json");
    if (state_) {
      done_ = report_.resumed_blocks = state_->at("blocks_done");
      report_.calibration = calibration_report(state_->at("calibration"));
      read_journal();
    }
    log_->write("begin", {{"version", version()},
                          {"cpu", cpu_name()},
                          {"kernels", setup_.device.kernels.name},
                          {"threads", setup_.device.pool.size()},
                          {"blocks", report_.blocks},
                          {"blocks_done", done_}});
  }

  void describe_search() {
    if (!setup_.search) return;
    report_.search = setup_.options.load_search.filename().string();
    if (const int g = setup_.search->group_size(); g && g != setup_.quant.group_size)
      report_.warnings.push_back(
          fmt::format("{} was searched for {}, not {}; a search of their own would be closer to the original",
                      report_.search, text_of_group(g), text_of_group(setup_.quant.group_size)));
  }

  void work() {
    require_resources();
    if (folder_.is_whole())
      read_kept();
    else
      make();
    report_.left_out = setup_.source->left_out();
    judge();
    publish();
  }

  void make() {
    const std::unique_ptr<CheckpointSink> sink = create_sink();
    for (const SideFile& f : setup_.source->side_files()) sink->put_side_file(f);
    sink->begin();
    if (state_) sink->resume(state_->at("sink"));
    calibrate();
    read_kept();
    const std::unique_ptr<HiddenFiles> hidden = setup_.calibrated() ? hidden_files() : nullptr;
    calibration_.sequences = {};
    if (setup_.weighs()) weigh_tokens(*hidden);
    open_search();
    quantize(*sink, hidden.get());
    if (search_) search_->finish(setup_.options.save_search);
    sink->finish();
  }

  // Measured once: a job that goes on finds it.
  void judge() {
    if (const auto before = folder_.read("judged.json")) return read_judged(*before, report_);
    const QuantizeOptions& o = setup_.options;
    if (setup_.gated())
      report_.gate = measure_gate(setup_.device, *setup_.source, model_, folder_.whole(), o, progress_);
    if (o.answers) report_.answers = both_answer(setup_.device, *setup_.source, folder_.whole(), o, progress_);
    folder_.save("judged.json", judged_json(report_, o));
  }

  std::filesystem::path destination() const {
    return report_.gate && !report_.gate->missed.empty() ? folder_.rejected() : folder_.output();
  }

  void publish() {
    AtomicDir dir({destination(), folder_.whole()});
    const Json report = report_json(report_, setup_.options, setup_.spec(), setup_.device.kernels.name);
    dir.write("awq-report.json", report_text(report));
    dir.write("awq-report.html", report_page(report));
    dir.commit();
  }

  // The page in the output is the same for every run, so this one's time and memory are in another.
  void write_run_page() {
    if (setup_.options.report.empty()) return;
    const std::filesystem::path file = report_.output / "awq-report.json";
    const Json report = Json::parse(read_text(file)),
               run = run_json(report_, setup_.device.kernels.name, setup_.device.pool.size());
    replace_file(setup_.options.report, report_page(report, &run));
  }

  void weigh_tokens(HiddenFiles& hidden) {
    const int64_t at_once = weighed_at_once(setup_.spec(), hidden.tokens(), hidden.length());
    weights_.emplace(folder_.scratch(), setup_.spec(), hidden.tokens(), at_once);
    if (state_) return;  // blocks come after it
    const auto before = folder_.read("weigh.json");
    if (!before) hidden.input(0).sync();
    const double earlier = before ? before->at("seconds").get<double>() : 0;
    const auto begin = std::chrono::steady_clock::now();
    weigh({.source = *setup_.source,
           .dev = *setup_.statistics,
           .host = setup_.host(),
           .hidden = hidden.around(0, true),
           .folder = folder_.scratch(),
           .at_once = at_once,
           .progress =
               [&](int done, int steps) {
                 flow_progress()({"weigh", done, steps});
               },
           .finished =
               [&](int done) {
                 folder_.save("weigh.json", {{"done", done}, {"seconds", earlier + seconds_since(begin)}});
               }},
          *weights_, before ? before->at("done").get<int>() : 0);
  }

  void open_search() {
    if (setup_.options.save_search.empty()) return;
    const std::string& sha = report_.calibration.sha256;
    const std::filesystem::path file = folder_.path("search");
    if (state_)
      search_.emplace(file, *setup_.source, setup_.quant, setup_.options.method, sha,
                      SafetensorsWriter::State{state_->at("search").at("header"), state_->at("search").at("bytes")});
    else
      search_.emplace(file, *setup_.source, setup_.quant, setup_.options.method, sha);
  }

  void quantize(CheckpointSink& sink, HiddenFiles* hidden) {
    quantize_blocks({.source = *setup_.source,
                     .sink = sink,
                     .method = *setup_.method,
                     .spec = setup_.quant,
                     .head = setup_.head,
                     .hidden = hidden,
                     .calibration = {.counted = calibration_.counted},
                     .dev = *setup_.statistics,
                     .host = setup_.host(),
                     .progress = flow_progress(),
                     .finished = [&](const BlockResult& b) { finished(b, sink, hidden); },
                     .kept = kept_,
                     .weights = weights_ ? &*weights_ : nullptr},
                    done_);
  }

  // What the state counts on is on the disk before it is.
  void finished(const BlockResult& b, CheckpointSink& sink, HiddenFiles* hidden) {
    write_journal(b);
    sink.sync();
    if (search_) {
      search_->put(b.block, b.solution);
      search_->sync();
    }
    if (hidden && b.block + 1 < report_.blocks) hidden->input(b.block + 1).sync();
    save(b.block + 1, sink);
    log_->write("block", {{"block", b.block}, {"error", b.mean_error()}, {"stages", to_json(b.costs)}});
  }

  // What is known of a block is a line of its own: neither memory nor time grows with the blocks before.
  void write_journal(const BlockResult& b) {
    QuantizeReport one;
    add_block(setup_.spec(), b, one);
    set_stages(b.costs, one.stages);
    Json known = blocks_json(one);
    known["stages"] = stages_json(one.stages);
    const std::string line = known.dump() + "\n";
    OutputFile journal(folder_.path("blocks.jsonl"), journal_bytes_);
    journal.write(line);
    journal.close();
    journal_bytes_ += line.size();
    read_blocks(nlohmann::json::parse(line), report_);
  }

  void read_journal() {
    const std::filesystem::path file = folder_.path("blocks.jsonl");
    journal_bytes_ = state_->at("journal_bytes");
    std::istringstream lines(read_text(file).substr(0, journal_bytes_));
    for (std::string line; std::getline(lines, line);) read_blocks(parse_json(line, file.string()), report_);
  }

  void save(int done, CheckpointSink& sink) {
    Json state = {{"blocks_done", done},
                  {"calibration", awq::to_json(report_.calibration)},
                  {"journal_bytes", journal_bytes_},
                  {"sink", sink.state()}};
    if (search_) state["search"] = {{"header", search_->state().header}, {"bytes", search_->state().data_bytes}};
    folder_.save("state.json", state);
    done_ = done;
  }

  void require_resources() {
    JobMemory need = memory_of(setup_.shape());
    need.base = resident_memory();
    const bool text_is_there = state_ || std::filesystem::exists(folder_.path("calibration.json"));
    if (text_is_there && !setup_.writes_gate_text()) need.text = 0;
    if (std::filesystem::exists(folder_.path("kept.json"))) need.kept = 0;
    require_memory(setup_, need);
    report_.planned_memory = need.peak();
    report_.planned_stages = stages_of(need);
    if (state_) return;  // much of it has been written
    const uint64_t scratch = uint64_t(scratch_bytes(setup_.shape())), output = setup_.output_bytes();
    require_room(folder_.output(), output + (setup_.options.scratch.empty() ? scratch : 0), "-o");
    if (!setup_.options.scratch.empty()) require_room(folder_.scratch(), scratch, "--scratch");
  }

  std::unique_ptr<CheckpointSink> create_sink() {
    nlohmann::json config = setup_.source->config();
    ModelSpec spec = setup_.spec();
    if (setup_.head) {
      config["tie_word_embeddings"] = spec.tied_embeddings = false;
      for (const char* language : {"text_config", "llm_config"})  // of models with other parts
        if (config.contains(language)) config[language]["tie_word_embeddings"] = false;
    }
    return fitting_sink(*setup_.format, {folder_.whole(), folder_.path("output")}, config, spec, setup_.quant);
  }

  // Where the job goes on, the tokens are in its files already, and what is kept has been chosen.
  void calibrate() {
    if (!setup_.needs_text() || (state_ && !setup_.options.mask_prompts)) return;
    calibration_ = calibration();
    report_.calibration = calibration_.report;
    report_.warnings.insert(report_.warnings.end(), calibration_.warnings.begin(), calibration_.warnings.end());
  }

  CalibrationSet calibration() {
    if (const auto there = folder_.read("calibration.json"))
      return {.sequences = there->at("sequences").get<std::vector<std::vector<int32_t>>>(),
              .counted = {},
              .report = calibration_report(there->at("report")),
              .warnings = {}};
    CalibrationSet set = calibration_set(setup_.device, *setup_.source, setup_.options, progress_);
    if (setup_.own_text())
      folder_.save("calibration.json", {{"report", awq::to_json(set.report)}, {"sequences", set.sequences}});
    return set;
  }

  void read_kept() {
    if (!setup_.keeps()) return;
    const ModelSpec& spec = setup_.spec();
    std::vector<KeepUnit> units;
    if (const auto chosen = folder_.read("kept.json")) {
      units = keep_units(spec, *chosen);
    } else {
      units = choose_kept(setup_.device, *setup_.source, *setup_.method, setup_.quant, setup_.bits_of_blocks(),
                          calibration_, setup_.options, progress_);
      folder_.save("kept.json", to_json(spec, units));
    }
    double extra = 0;
    for (const KeepUnit& u : units)
      for (size_t i = 0; i < u.layers.size(); ++i) {
        const auto [block, p] = u.layers[i];
        const double bits = double(shape_of(spec, block, p).elements()) * (16 - setup_.bits_of_blocks());
        kept_.insert({block, p});
        report_.kept.push_back({base_name(spec, block, p), u.kl[i], uint64_t(bits / 8)});
        extra += bits;
      }
    report_.bits_per_weight += extra / setup_.quantized_weights();
  }

  /// With what goes into the first block that is not done.
  std::unique_ptr<HiddenFiles> hidden_files() {
    const CalibrationReport& c = report_.calibration;
    auto files = std::make_unique<HiddenFiles>(folder_.scratch(), int64_t(c.sequences) * c.sequence_tokens,
                                               c.sequence_tokens, stream_width(setup_.spec()));
    if (!state_)
      embed_tokens(*setup_.statistics, *setup_.source, calibration_.sequences, *files);
    else if (done_ < report_.blocks && !files->complete(done_))
      fail("resume", "{}: the activations that go into block {} are not there; begin anew with --restart",
           folder_.scratch().string(), done_);
    return files;
  }

  std::function<void(const QuantizeProgress&)> flow_progress() const {
    return [this](const QuantizeProgress& p) {
      if (progress_ && !progress_({p.stage, p.block, p.blocks, resident_memory(), p.last_error})) throw Cancelled();
    };
  }

  void finish() {
    if (const auto judged = folder_.read("judged.json"); judged && !report_.gate) read_judged(*judged, report_);
    report_.output = destination();
    for (const TensorInfo& t : setup_.source->tensors()) report_.bytes_in += t.bytes;
    for (const TensorInfo& t : Checkpoint::open(report_.output)->tensors()) report_.bytes_out += t.bytes;
    report_.peak_memory = peak_resident_memory();
    if (const auto weighed = folder_.read("weigh.json"))
      report_.stages.insert(report_.stages.begin(), {"weigh", weighed->at("seconds").get<double>()});
    report_.seconds = seconds_since(begin_);
    write_run_page();
    log_->write("done", {{"seconds", report_.seconds},
                         {"peak_rss", report_.peak_memory},
                         {"output", report_.output.string()},
                         {"missed", report_.gate ? report_.gate->missed : std::vector<std::string>()}});
    folder_.remove();
  }

  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  const OnProgress& progress_;
  const std::filesystem::path& model_;
  JobSetup setup_;
  JobFolder folder_;
  std::optional<JobLog> log_;
  std::optional<nlohmann::json> state_;
  int done_ = 0;
  uint64_t journal_bytes_ = 0;
  CalibrationSet calibration_;
  std::set<std::pair<int, Param>> kept_;
  std::optional<SearchWriter> search_;
  std::optional<TokenWeights> weights_;
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
  require_cpu(options.device, "quantize");
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
