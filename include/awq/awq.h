#pragma once
// The whole public interface: quantize a checkpoint, measure what it cost, or open one and generate.
// Models are folders (Hugging Face safetensors, AutoAWQ) or .gguf files. Everything throws awq::Error.
#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "awq/error.h"

namespace awq {

std::string_view version();

/// Thrown where a progress callback asked to stop. Nothing has been written under the output's name.
struct Cancelled : Error {
  /// `left`: what is there to go on with, and how; empty where nothing is.
  explicit Cancelled(const std::string& left = "")
      : Error(left.empty() ? "nothing was left under the output's name" : left) {}
};

struct Progress {
  std::string_view stage;   // "load", "generate calibration text", "weigh", "calibrate", "search", "write", "evaluate",
                            // "measure the machine", "check", "prefill", "decode", "speed", "answer", "sensitivity",
                            // "study", "fetch", "convert", "inspect", or a task's name
  int done = 0, total = 0;  // blocks, tokens, windows or steps
  int64_t resident = 0;     // quantize: bytes that the process has in memory
  double last_error = -1;   // quantize: mean relative output error of the last finished block; < 0: none yet
};
using OnProgress = std::function<bool(const Progress&)>;  // false cancels

struct DeviceOptions {
  int threads = 0;    // 0: one per physical core; at most max_threads()
  std::string isa{};  // kernel set by name; empty: the best this CPU has, or AWQ_ISA
  /// What activations become for products with 4-bit weights: "int16" (empty means it too; finer than 16-bit floats),
  /// "int8" (faster, coarser; an 8-bit head keeps int16) or "bf16" (rounded to bfloat16; faster with long prompts
  /// on CPUs with AMX, where weights are rounded too). `quantize` refuses it: it runs the float model.
  std::string activations{};
  /// What keys and values are kept in: "f32", "f16", "bf16", "int8" or "fp8" (e4m3); empty: bf16 to generate, f32 to
  /// evaluate. `quantize` refuses it: calibration is in f32.
  std::string kv{};
  /// What runs the model: "cpu" (empty means it too) or "cuda", the first GPU, on which `activations` are "f16" (empty
  /// means it too) or "bf16" and `kv` is f16, bf16, int8 or fp8. What quantizes, or looks into a model, runs on the
  /// CPU.
  std::string device{};
  /// How many of a model's last blocks the GPU has, with the head; the CPU computes those before them. 0: as many as
  /// fit its memory, beside keys and values of 4,096 tokens. Throws Error where so many do not fit.
  int gpu_layers = 0;
};

int max_threads();  // CPUs that this process may use, hyper-threads counted

/// What models can run on here.
struct KernelSetInfo {
  std::string name;
  bool usable = false;  // on this CPU
};
struct GpuInfo {
  bool built = false;  // the library knows CUDA
  bool usable = false;
  std::string name{}, architecture{};  // "NVIDIA H200", "sm_90"; empty: there is none
  std::string driver{};                // "for CUDA 13.0"
  std::string targets{};               // that kernels were compiled for: "80 86 89 90a 100"
  std::string why_not{};               // where it is not usable
  int64_t memory = 0, free = 0;        // bytes of its memory, and those that no program has
};
struct DoctorReport {
  std::string cpu;
  int threads = 0;                    // max_threads()
  std::string kernels;                // of the CPU, that are used unless others are asked for
  std::vector<KernelSetInfo> sets{};  // best first
  GpuInfo gpu{};
};
DoctorReport doctor();

struct Estimate {
  double value = 0, standard_error = 0;  // over windows of text
};

struct Spread {
  double median = 0, lowest = 0, highest = 0;
};

// ----------------------------------------------------------------------------------------------------------------
// quantize

/// A file of calibration text: .txt, or .jsonl with "text" or chat "messages" a line.
struct CalibrationSource {
  std::filesystem::path file{};
  double weight = 1;  // the share of all tokens that it gets, relative to the other sources'
};

struct QuantizeOptions {
  /// See quantize_methods(). Empty: "awq+"; with a variant or a loaded search, whose codes are rounded, "awq".
  std::string method{};
  std::string variant = "ours";    // of "awq": "llm-awq", "autoawq" or "llm-compressor" search as those programs do
  std::string format{}, target{};  // one of them, as of ConvertOptions, or neither: "autoawq"
  int tensor_parallel = 1;         // devices that the result will be split over: whole groups, words and heads on each
  int bits = 4;                    // 2, 3, 4 or 8 that the format holds
  /// 0: 128, or the largest of 64 and 32 that divides every width of the model; -1: whole rows.
  int group_size = 0;
  bool symmetric = false;      // every zero point is the middle of the codes
  std::string scales = "f16";  // or "bf16": what a group's scale is rounded to and stored in
  /// A scale has 11 - bits significant bits, so that its product with any zero point is exact in f16, and conversions
  /// to formats that hold the product lose nothing. For 2, 3 and 4 bits with scales in f16.
  bool portable_scales = false;
  /// 4 or 8: the head too, rounded to nearest, as a matrix of its own where it is tied to the embedding, which stays
  /// float. 0: it stays float, which every other program needs.
  int quantize_head = 0;
  std::vector<CalibrationSource> calibration{};  // none: the model writes its own
  bool mask_prompts = false;  // of chats, only the assistants' answers count in the statistics; plain text counts
  /// awq+ counts each token by what it does to what the model says, which takes a pass forward and back before the
  /// blocks; false: all tokens alike.
  bool token_weights = true;
  int samples = 0;           // sequences; 0: the recipe's default
  int sample_tokens = 0;     // tokens a sequence; 0: the recipe's default
  double temperature = 1.0;  // of the model's own calibration text
  uint64_t seed = 0;
  /// Bytes that the process may have in memory. Whatever runs within them gives the same result; less than the least is
  /// refused before any work. 0: what the machine has available. It holds where the allocator gives freed memory of 1
  /// MB and more back to the system, which the command asks for (mallopt, M_MMAP_THRESHOLD).
  int64_t max_ram = 0;
  /// An unfinished job on the same output, "<out>.awq-job", is gone on with (begun where there is none), or thrown
  /// away; without either it is refused.
  bool resume = false, restart = false;
  std::filesystem::path scratch{};  // folder for activations: 8 bytes a token and channel; empty: in the job's folder
  std::filesystem::path log{};      // JSON lines; empty: "log.jsonl" in the job's folder, which goes with it
  /// The search's scales and ranges are written to this new file, or read from one instead of searching: of this
  /// program (safetensors; of the same model and any group size) or of llm-awq (.pt; its names and shapes must be the
  /// model's).
  std::filesystem::path save_search{}, load_search{};
  /// Layers that stay in 16 bits, with those that other programs fuse with them (q, k and v; gate and up): the `keep`
  /// most sensitive, or as many as the mean of `budget` bits per weight of the blocks' matrices has room for. 0: none.
  int keep = 0;
  double budget = 0;
  /// Gates: the result is measured against the original on held-out text, and if its KL (nats a token) is larger or its
  /// top-1 agreement (a share of positions) less, it is kept as "<out>.rejected". Both models are in memory then.
  std::optional<double> max_kl{}, min_top1{};
  /// Held out, .txt or .jsonl, of which the first 16 windows of 512 tokens count; empty: text that the model writes
  /// with the next seed.
  std::filesystem::path gate_text{};
  /// Prompts that both models answer in the report, each model loaded by itself. Negative: 5 where the model writes its
  /// own calibration text, which needs the whole of it in memory anyway; else none.
  int answers = -1;
  /// The report's page with the time and memory of this run, which are not in the output's own, written to this file.
  std::filesystem::path report{};
  DeviceOptions device{};
};

/// What a stage took, all blocks together.
struct StageReport {
  std::string name;  // "weigh", "load", "forward", "gram", "search", "clip", "check", "write"
  double seconds = 0;
  double operations = 0;  // a product is one, its addition another; 0 where bytes count
  uint64_t bytes = 0;
};

struct LayerReport {
  std::string name;               // "model.layers.3.mlp.down_proj"
  double error = 0;               // relative output error: sum |y' - y|^2 / sum |y|^2 over the calibration tokens
  double rounding_error = 0;      // the same for plain rounding
  double clipped = 0;             // share of groups whose range was cut
  int64_t tokens = 0;             // calibration tokens that it was judged on
  std::vector<int64_t> codes{};   // weights that have each of the 2^bits codes
  std::optional<int64_t> routed;  // tokens that the router sent to its expert, where it is one's
  int64_t forced = 0;             // of `tokens`, that it would have sent elsewhere: too few came by themselves
};
/// A channel of a group's input before it is scaled.
struct ChannelReport {
  int64_t channel = 0;
  double mean_abs = 0, scale = 1;  // of the activations over the calibration tokens; what it was divided by
};
struct GroupReport {
  std::string producer;                // what absorbed the inverse scales
  std::vector<std::string> consumers;  // what was scaled
  double alpha = 0;                    // exponent of the activations' magnitude; 0 without weight term: no scaling
  bool weight_term = false;
  double loss = 0, identity_loss = 0;  // on the group's own measure; loss <= identity_loss
  double smallest_scale = 1, largest_scale = 1;
  std::vector<ChannelReport> salient{};  // the five of the largest activations; empty without calibration
  int64_t dead_channels = 0;             // that were zero at every calibration token
  double mean_abs = 0;                   // of all channels' activations
};
/// One source of calibration text. A text is a line of a .jsonl file, or a whole .txt file; texts are joined, then cut.
struct CalibrationSourceReport {
  std::string name;  // "self" or the file's name
  double weight = 1;
  int sequences = 0;
  int64_t texts = 0;            // read, empty ones not counted
  int64_t texts_truncated = 0;  // used in part
  int64_t texts_dropped = 0;    // not used
  int64_t tokens = 0, tokens_used = 0;
  int64_t tokens_counted = 0;  // of those used, in the statistics: all, or those of answers
};
struct CalibrationReport {
  std::string source;       // names of all sources
  std::string sha256;       // of the token ids, little-endian 32-bit
  std::string mask_sha256;  // of a byte a token, 1 where it counts; empty without mask_prompts
  int sequences = 0, sequence_tokens = 0;
  int64_t texts = 0, tokens_read = 0, tokens_unused = 0;
  std::vector<CalibrationSourceReport> sources;
};
/// As in awq-report.json.
std::string to_json_text(const CalibrationReport& r);
/// A layer that stayed in 16 bits.
struct KeptReport {
  std::string name;
  double kl = 0;             // to the original when this layer alone is quantized
  uint64_t extra_bytes = 0;  // beyond 4 bits
};
/// What held-out text said of the result.
struct GateReport {
  std::string text;  // "self" or the file's name
  int windows = 0, window = 0;
  Estimate kl, top1;
  std::vector<std::string> missed;  // in words; empty: the result passed
};
/// A prompt and what both models answer, greedily.
struct AnswerReport {
  std::string prompt, original, quantized;
};
struct QuantizeReport {
  std::filesystem::path output;  // where the result is: `out`, or "<out>.rejected"
  std::string method;
  std::vector<LayerReport> layers;
  std::vector<GroupReport> groups;
  std::vector<KeptReport> kept;
  std::string search;  // the file that scales and ranges came from; empty: searched
  CalibrationReport calibration;
  std::optional<GateReport> gate;  // where one was asked for
  std::vector<AnswerReport> answers;
  double worst_fold_error = 0;        // relative change of a float block by folding its scales
  int group_size = 0;                 // -1: whole rows
  std::string group_size_reason;      // why it is not 128, where it is not
  bool symmetric = false;             // as asked for, or because the format has no zero points
  std::vector<std::string> warnings;  // what the user should know of the result before using it elsewhere
  std::vector<std::string> left_out;  // files and folders beside the model that were not copied: other weights
  uint64_t bytes_in = 0, bytes_out = 0;
  double bits_per_weight = 0;          // of the quantized matrices, scales and zero points included
  int blocks = 0, resumed_blocks = 0;  // how many there are, and were done by an earlier process
  std::vector<StageReport> stages;
  int64_t planned_memory = 0, peak_memory = 0;  // bytes: what the job was expected to have, and what the process had
  std::vector<std::pair<std::string, int64_t>> planned_stages;  // as PlanReport::memory
  double seconds = 0;
};

struct MethodInfo {
  std::string_view name, summary;
};
std::vector<MethodInfo> quantize_methods();

/// What each layer costs when it alone is quantized.
struct SensitivityOptions {
  QuantizeOptions quantize{};    // how, and with which calibration; `keep` and `budget` are not looked at
  std::filesystem::path text{};  // that KL is measured on, .txt or .jsonl; empty: the calibration text
  int windows = 4, window = 128;
};
struct LayerSensitivity {
  std::string name;
  double kl = 0, standard_error = 0;  // nats a token, KL(original || only this layer quantized), over windows
  uint64_t saved_bytes = 0;           // by 4 bits instead of 16
};
struct SensitivityReport {
  std::vector<LayerSensitivity> layers;  // in the model's order
  CalibrationReport calibration;
  std::string text;  // "calibration" or the file's name
  int group_size = 0, windows = 0, window = 0;
  std::vector<std::string> warnings;
  double seconds = 0;
};
/// The float model, its logits of windows * window tokens and one block's search are in memory at a time. Time: the
/// search, and for each layer the blocks from its own to the last and the head on those tokens.
SensitivityReport sensitivity(const std::filesystem::path& model, const SensitivityOptions& options = {},
                              const OnProgress& progress = {});

/// Ways to change a model's matrices against each other, without writing any: they are computed, de-quantized, and run
/// in floats, so that the number of bits is free. Each study is a table.
struct StudyOptions {
  QuantizeOptions quantize{};          // calibration, seed, device; what is made is said below
  int bits = 0;                        // 2, 3, 4 or 8; 0: the study's own
  int group_size = 0;                  // as QuantizeOptions; -1: whole rows
  bool symmetric = false;              // every zero point is the middle
  std::string scales = "f16";          // or "bf16": what a group's scale is rounded to
  std::vector<std::string> methods{};  // of those studies that compare some; empty: the study's own
  std::vector<int> counts{};           // of "calibration": numbers of sequences; empty: 4, 16 and 64
  std::filesystem::path text{};        // held out, .txt or .jsonl; empty: text that the model writes itself
  int windows = 4, window = 512;
};
struct StudyRow {
  std::string name;
  int bits = 0, group_size = 0;  // of weights, -1: whole rows; 0 where there are none
  Estimate kl, top1;             // as in EvaluateReport
  double perplexity = 0, perplexity_error = 0;
  Estimate difference;  // of KL to the second row's, the first that is not the float model, window by window
  int calibration = 0;  // of StudyReport::calibrations
};
struct StudyReport {
  std::vector<StudyRow> rows;  // the float model first
  std::vector<std::string> warnings;
  std::vector<CalibrationReport> calibrations;  // one, unless the study compares some
  std::string text;                             // "self" or the file's name
  int windows = 0, window = 0;
  double seconds = 0;
};
struct StudyInfo {
  std::string_view name, summary;
};
std::vector<StudyInfo> studies();
std::vector<std::string_view> study_methods();  // what options.methods may name
StudyReport study(const std::filesystem::path& model, std::string_view name, const StudyOptions& options = {},
                  const OnProgress& progress = {});

/// Quantizes `model` into the new folder `out` (AutoAWQ GEMM, with awq-report.json and awq-report.html). The folder
/// appears complete or not at all; where a gate is missed, as "<out>.rejected". The same model, options and seed give
/// the same bytes for any number of threads on one kernel set, for any memory that suffices, and however often the job
/// was interrupted. A job that ends early, for whatever reason, leaves
/// "<out>.awq-job", from which a call with `resume` goes on after the last finished block.
QuantizeReport quantize(const std::filesystem::path& model, const std::filesystem::path& out,
                        const QuantizeOptions& options = {}, const OnProgress& progress = {});

struct PlanReport {
  int64_t parameters = 0;      // of the model, biases included
  int64_t peak_memory = 0;     // bytes that the process will have at most
  int64_t allowed_memory = 0;  // max_ram, or what the machine has available
  /// Bytes in each stage of a job, the process itself included: "read", "text", "weigh", "keep", "outer", "load",
  /// "forward", "search", "clip", "check", "judge"; 0 where there is none.
  std::vector<std::pair<std::string, int64_t>> memory;
  uint64_t output_bytes = 0, scratch_bytes = 0, free_output = 0, free_scratch = 0;  // free: on the disks they go to
  bool timed = true;         // false where there is a config.json and no weights: the times are 0
  double text_seconds = 0;   // the model writes its calibration text
  double weigh_seconds = 0;  // tokens are weighed
  double block_seconds = 0;  // each
  double seconds = 0;        // all
  int blocks = 0;
  std::vector<std::string> misfits;  // what does not fit, and what would; empty: it can run
};
/// What quantize(model, out, options) would take, from the headers and one block that is really computed; of a folder
/// without weights, from its config.json alone, without times.
PlanReport plan(const std::filesystem::path& model, const std::filesystem::path& out,
                const QuantizeOptions& options = {}, const OnProgress& progress = {});

// ----------------------------------------------------------------------------------------------------------------
// evaluate

struct EvaluateOptions {
  /// "hf": windows of 2,048 as in the AWQ paper, of which all predictions count. "llama.cpp": as its llama-perplexity,
  /// windows of 512 that begin with BOS where the model has one, of which the second half counts.
  std::string protocol = "hf";
  int window = 0;            // tokens; 0: the protocol's. The text is tokenized once and cut, the tail is dropped
  int windows = 0;           // 0: all
  std::string json_lines{};  // name of the .jsonl file that the text is, for errors; its documents are joined as for
                             // calibration. Empty: plain text
  std::filesystem::path against{};  // the original, for KL and top-1 agreement
  /// evaluate() writes what is needed of the model to be an original later into this new file: last hidden states, f32,
  /// of every prediction. Or it reads them, of which `against` was the model; then only that model's head is loaded.
  std::filesystem::path save_reference{}, reference{};
  int worst = 0;  // tokens with the largest KL that are reported
  DeviceOptions device{};
};
/// A prediction in which two models differ much.
struct DivergentToken {
  int window = 0, position = 0;
  double kl = 0;
  std::string before, next;     // the text up to it, and its next token
  std::string original, model;  // what each predicts
};
struct EvaluateReport {
  int windows = 0, window = 0;
  int64_t text_tokens = 0, predictions = 0;
  std::string model{};
  double perplexity = 0;        // exp of the mean over windows of the mean negative log-likelihood of predictions
  double perplexity_error = 0;  // over windows; of "llama.cpp" over predictions, as it prints
  std::vector<double> window_nll{}, window_kl{}, window_top1{};
  std::optional<Estimate> kl{};          // nats a token, KL(original || model) over the whole vocabulary
  std::optional<Estimate> top1{};        // share of positions where both predict the same token
  std::optional<Estimate> reverse_kl{};  // KL(model || original)
  std::optional<Estimate> top5{};        // share where the original's token is one of the model's five likeliest
  double kl_median = 0, kl_99 = 0, kl_largest = 0;  // over predictions: half, and 99 of 100, are not above
  std::vector<DivergentToken> worst{};              // the largest first
  std::optional<double> original_perplexity{};
  uint64_t bytes = 0;  // of the model's files
  double bits_per_weight = 0;
  double seconds = 0;
};
EvaluateReport evaluate(const std::filesystem::path& model, std::string_view text, const EvaluateOptions& options = {},
                        const OnProgress& progress = {});
/// The original first, then each model against it, all on the same windows. `options.against` is not looked at.
std::vector<EvaluateReport> compare(const std::filesystem::path& original,
                                    std::span<const std::filesystem::path> models, std::string_view text,
                                    const EvaluateOptions& options = {}, const OnProgress& progress = {});
/// Mixes of calibration text against each other, on held-out text.
struct CalibrationCompareOptions {
  QuantizeOptions quantize{};                           // `calibration` is not looked at
  std::vector<std::vector<CalibrationSource>> mixes{};  // an empty one: the model's own text
  /// Held out, .txt or .jsonl; empty: text that the model writes itself with the next seed.
  std::filesystem::path text{};
  int windows = 0, window = 512;        // 0 windows: all of the file, 16 of the model's own text
  std::filesystem::path scratch = ".";  // the quantized models lie in a folder here for as long as they are needed
};
struct CalibrationMixReport {
  std::string mix;  // names and weights of its files, or "self"
  CalibrationReport calibration;
  EvaluateReport evaluation;
  Estimate difference;  // of KL to the first mix's, window by window
};
/// Quantizes the model once with each mix and evaluates all on the same windows against the original.
std::vector<CalibrationMixReport> compare_calibrations(const std::filesystem::path& model,
                                                       const CalibrationCompareOptions& options,
                                                       const OnProgress& progress = {});
/// Logits f32 [tokens][vocab] of one sequence.
std::vector<float> logits(const std::filesystem::path& model, std::span<const int32_t> tokens,
                          const DeviceOptions& device = {});

// ----------------------------------------------------------------------------------------------------------------
// tasks

struct TaskInfo {
  std::string_view name, summary;
};
std::vector<TaskInfo> tasks();
struct TaskFile {
  std::string task;
  std::filesystem::path file;  // as the data set's authors publish it: docs/evaluation.md; of "mmlu" also their folder
};
struct TaskOptions {
  std::vector<TaskFile> tasks{};
  int limit = 0;   // the first items of each, of a task in parts of each part; 0: all
  int shots = -1;  // examples before each item; negative: as many as the task is usually run with
  /// What examples are drawn from, of one task; empty: its own items, of which none is its own example. Of a folder of
  /// parts a folder, too.
  std::filesystem::path shots_from{};
  uint64_t seed = 1234;  // of the examples
  /// Every item's prompt, choices and scores as they are known, JSON lines; a job that ends early goes on from it with
  /// `resume`. Without that an existing file is refused.
  std::filesystem::path samples{};
  bool resume = false;
  DeviceOptions device{};
};
struct TaskMetric {
  /// "acc": the right choice is the likeliest; "acc_norm": the likeliest for its length in characters; "perplexity" of
  /// the continuation; "strict", "flexible": the answer's number is right.
  std::string name;
  Estimate value;             // the error is over items
  std::vector<double> items;  // what each counts, in the file's order; of "perplexity" its log-likelihood
};
/// A subject of "mmlu", or a category of subjects.
struct TaskPart {
  std::string name;
  int items = 0;
  std::vector<TaskMetric> metrics{};
};
struct TaskReport {
  std::string model, task, file;
  int items = 0, shots = 0;
  int resumed = 0;    // of the items, that an earlier job had scored
  int truncated = 0;  // items that were longer than the model's context and lost their beginning
  /// Of a task in parts every item counts alike, and errors are those of the pooled variance.
  std::vector<TaskMetric> metrics{};
  std::vector<TaskPart> parts{};   // where the task's file is a folder
  std::vector<TaskPart> groups{};  // of parts, as the task's authors sum them up
  double seconds = 0;
};
/// Each task as lm-eval defines it: prompts, examples, tokens, what counts. All files are read and checked before the
/// model is. Throws Error, naming file and line, where they are not the task's data.
std::vector<TaskReport> evaluate_tasks(const std::filesystem::path& model, const TaskOptions& options,
                                       const OnProgress& progress = {});

/// What versions of a model write behind the same prompts: the likeliest token each time, and drawn.
struct AnswerOptions {
  /// .txt, a prompt a line, or .jsonl: {"prompt": ...} or {"messages": [...]}, and "kind", "reasoning", "code",
  /// "dialogue" or "text"; empty: those that are built in.
  std::filesystem::path file{};
  int prompts = 0;           // the first so many; 0: all of the file, and none of those that are built in
  int tokens = 128;          // that an answer has at most
  double temperature = 0.7;  // of those that are drawn
  uint64_t seed = 0;         // prompt i is drawn with seed + i by all models
  bool wanted() const { return prompts > 0 || !file.empty(); }
};
/// What one model wrote behind one prompt.
struct LongAnswer {
  std::string prompt, kind, text;
  int tokens = 0;              // with the one that ends it
  bool ended = false;          // by such a token, and not by the limit
  int same = 0;                // tokens before the first that is not the original's
  bool identical = false;      // all of them are
  double repetition = 0;       // share of runs of four tokens that were there before
  double length_ratio = 1;     // tokens, by the original's
  std::optional<bool> agrees;  // of "reasoning" where the original wrote a number: the last number is the same
};
struct LongAnswers {
  std::string mode;  // "greedy" or "sampled"
  int limit = 0;     // tokens
  double temperature = 0;
  std::vector<LongAnswer> answers{};
  Estimate same{}, repetition{}, length_ratio{}, identical{};  // means over prompts
  std::optional<Estimate> agreement{};                         // empty where there is nothing to agree with
};
/// Of a model that is alone in memory, keys and values as generation has them.
struct SpeedReport {
  int prefill_tokens = 0, decode_tokens = 0;
  Spread prefill{}, decode{};               // tokens per second of one sequence
  int64_t weight_memory = 0;                // bytes of the matrices as they are run, head included
  std::optional<int64_t> peak_memory = {};  // bytes the process had from before the model was loaded; empty: not known
};

struct ComparisonOptions {
  std::filesystem::path text{};  // .txt, or .jsonl; empty: none
  EvaluateOptions evaluate{};  // of the text; `against` and references are not looked at. Its device is the tasks' too
  TaskOptions tasks{};         // of each model, one after the other
  AnswerOptions answers{};     // likewise
  bool speed = false;          // likewise: tokens per second and memory
  bool rounding = false;       // the original rounded to nearest, in 4 bits, is made and compared first
  std::filesystem::path scratch = ".";  // the rounded model lies in a folder here for as long as it is needed
};
struct ComparedModel {
  std::string name;  // its path, or "rounding"
  uint64_t bytes = 0;
  double bits_per_weight = 0;
  std::optional<EvaluateReport> text{};
  std::vector<TaskReport> tasks{};
  std::vector<LongAnswers> answers{};  // greedy and sampled, where they were asked for
  std::optional<SpeedReport> speed{};
};
/// What a model has more than another of something, pair by pair.
struct PairedDifference {
  std::string
      metric;  // "KL" and "negative log-likelihood" by window, "piqa acc" by item, "greedy repetition" by prompt
  std::string model, other;
  int64_t pairs = 0;
  double difference = 0, low = 0, high = 0;  // the mean, and where 95 % of resampled means lie
  double p = 1;                              // two-sided, by the bootstrap of the pairs
  bool better = false;                       // the model's side
};
struct ComparisonReport {
  std::vector<ComparedModel> models;  // the original first
  /// Of each version to the original, then of each to the first version.
  std::vector<PairedDifference> differences;
};
/// Versions of a model side by side, on the same windows and items.
ComparisonReport compare_models(const std::filesystem::path& original, std::span<const std::filesystem::path> models,
                                const ComparisonOptions& options, const OnProgress& progress = {});
std::string to_markdown(const ComparisonReport& r);
std::string to_html(const ComparisonReport& r);  // a page that needs nothing else

// -----------------------------------------------------------------------------------------------------------------
// pull

struct PullOptions {
  std::string revision = "main";     // a branch, a tag or a commit
  std::vector<std::string> files{};  // weights to fetch by name; none: all safetensors, or the only GGUF file
  std::string endpoint{};            // "https://hub"; of the interface that Hugging Face's hub has
  std::string token{};               // for models that are not public; never sent to another host
  std::filesystem::path cache{};
  int connections = 4;  // files at once
  int silence = 30;     // seconds without a byte after which a connection is given up, and made again
};
struct PullReport {
  std::filesystem::path model;  // a folder, or a GGUF file
  std::string commit;
  int files = 0;
  uint64_t bytes = 0;
};
/// Fetches a model into the cache and checks what it can: sizes, and SHA-256 where the hub gives it. What is there
/// already, files in part too, is not fetched again. Progress is in MB.
PullReport pull(const std::string& name, const PullOptions& options, const OnProgress& on_progress = {});
/// Where a model that was fetched lies; empty where it was not, or not completely.
std::filesystem::path pulled(std::string_view name, const std::filesystem::path& cache,
                             std::string_view revision = "main");

// ----------------------------------------------------------------------------------------------------------------
// convert

struct ConvertOptions {
  std::string format{}, target{};    // one of them; see `awq convert --help`
  std::vector<std::string> allow{};  // losses that are accepted
  int tensor_parallel = 1;           // as of QuantizeOptions
  int threads = 0;
};
struct ConvertReport {
  std::string from, to;  // formats
  /// Every code, zero point or offset, scale and float of the result was read again and is the source's.
  bool exact = false;
  double largest_error = 0, mean_error = 0;  // of weights
  std::string where;                         // the largest
  int matrices = 0, floats = 0;
  std::vector<std::string> dequantized, dropped, left_out;
  uint64_t bytes = 0;
  double seconds = 0;
};
/// Writes a quantized model in another format with the codes it has, or a float model as GGUF, matrix by matrix, then
/// reads both and compares.
ConvertReport convert(const std::filesystem::path& model, const std::filesystem::path& output,
                      const ConvertOptions& options, const OnProgress& on_progress = {});
/// Reads all of a model, whose readers check what they read, and compares it with another; with itself where that is
/// empty. Throws Error naming what is wrong.
ConvertReport verify(const std::filesystem::path& model, const std::filesystem::path& against = {}, int threads = 0);

// ----------------------------------------------------------------------------------------------------------------
// inspect

struct InspectOptions {
  bool codes = false;  // every code is read, not headers alone; InspectReport::matrices are then there
  int threads = 0;     // that read them; 0: one per physical core
};
struct TensorReport {
  std::string name, type, shape;
  uint64_t bytes = 0;
  std::string use;     // "quantized", "float", "carried" or "dropped", see LedgerRow
  std::string reason;  // why it is dropped
};
/// All tensors with one use: "quantized", codes and what belongs to them; "float", matrices of the blocks that could be
/// rounded and are not; "carried", embedding, head, norms, biases and routers in floats; "dropped", nothing is computed
/// with them. Tensors and bytes add up to those of the files, weights to the model's parameters.
struct LedgerRow {
  std::string use;
  int64_t tensors = 0;
  uint64_t bytes = 0;
  int64_t weights = 0;
};
/// Matrices that are quantized alike.
struct CodesReport {
  int bits = 0, group_size = 0;
  std::string scales, zeros;  // "F16"; "any", "middle" where all are 2^(bits - 1), "offsets" where groups have these
  int64_t matrices = 0, weights = 0;
};
/// What the codes of one matrix are.
struct MatrixReport {
  std::string name;
  int bits = 0, group_size = 0;
  std::vector<int64_t> codes{}, zeros{};        // how often each value is there, [2^bits]; zeros empty with offsets
  double low = 0, high = 0;                     // share of codes that are 0, and 2^bits - 1
  int64_t groups = 0, equal_groups = 0;         // of the matrix, and those whose codes are all the same
  int64_t zero_scales = 0;                      // groups
  float smallest_scale = 0, largest_scale = 0;  // magnitudes, of those not 0
  std::vector<std::string> suspicions{};        // in words; what makes one: docs/formats.md
};
struct InspectReport {
  std::string format, architecture;
  int blocks = 0, dim = 0, vocab = 0, context = 0;
  std::string quantization;       // of the blocks' matrices: "4 bits, groups of 64"; empty for a float model
  std::string head;               // "BF16", or as above
  uint64_t bytes = 0;             // of all files that hold weights
  int64_t weights = 0;            // parameters
  double bits_per_weight = 0;     // all weights
  uint64_t memory = 0;            // of the matrices when the model runs, without the embedding and the KV cache; bytes
  std::vector<LedgerRow> ledger;  // the four uses
  std::vector<CodesReport> codes;
  std::vector<TensorReport> tensors;
  std::vector<std::string> side_files;
  std::vector<MatrixReport> matrices;  // with InspectOptions::codes, those that are quantized
};
InspectReport inspect(const std::filesystem::path& model, const InspectOptions& options = {},
                      const OnProgress& progress = {});

// ------------------------------------------------------------------------------------------------------------------
// text

struct TokenizeOptions {
  bool add_special = true;     // with the tokens that the tokenizer puts around a text, such as BOS
  bool parse_special = false;  // the text of a special token, such as "<|im_end|>", becomes that token
  bool skip_special = false;   // decoding leaves special tokens out
  /// How text is split, where the tokenizer is a tiktoken rank file, which does not say: "llama3", "qwen2", ... An
  /// unknown name throws, naming those that are known.
  std::string splitting{};
  bool ids_only = false;  // tokens and decoded stay empty
};
struct Tokenized {
  std::vector<int32_t> ids;
  std::vector<std::string> tokens;  // as the vocabulary spells them
  std::string decoded;
};
/// Each text by the tokenizer of a model's folder or .gguf file, of which nothing else is read, or of a tokenizer's own
/// file: tokenizer.json, a SentencePiece model or a tiktoken rank file. Invalid UTF-8 counts as U+FFFD.
std::vector<Tokenized> tokenize(const std::filesystem::path& model, std::span<const std::string> texts,
                                const TokenizeOptions& options = {});
/// The text of each list of tokens.
std::vector<std::string> detokenize(const std::filesystem::path& model, std::span<const std::vector<int32_t>> ids,
                                    const TokenizeOptions& options = {});

struct RenderOptions {
  std::filesystem::path chat_template{};  // a file, instead of the model's own template
  std::string tools{}, documents{};       // JSON lists, or empty
  std::string variables{};                // a JSON object of further variables, or empty
  bool add_generation_prompt = false;
  bool parse_special = false;  // of encode_chat: the text of a special token in a message becomes that token
};
/// A conversation, a JSON list of messages, as the chat template writes it. `model` may be empty if options name a
/// template. Throws Error with line and column where the template refuses the conversation or fails.
std::string render(const std::filesystem::path& model, std::string_view messages, const RenderOptions& options = {});
/// What render() writes, as the model's tokens.
std::vector<int32_t> encode_chat(const std::filesystem::path& model, std::string_view messages,
                                 const RenderOptions& options = {});

// ------------------------------------------------------------------------------------------------------------------
// bench

struct BenchOptions {
  std::vector<int> prefill{512};  // tokens of a prompt
  std::vector<int> context{512};  // tokens before the first that is decoded
  std::vector<int> batch{1, 8};   // sequences decoded together, one token each a step
  int decode = 64;                // steps
  int repeat = 3;
  std::string weights = "int4";  // random ones: "int4", "bf16" or "f32"
  int group_size = 0;            // of random weights; 0: as for quantize
  int quantize_head = 0;         // of random weights: 4 or 8 bits; 0: bf16
  uint64_t seed = 0;             // of random weights, and of the tokens
  DeviceOptions device{};
};
/// 10^9 operations a second that all threads together reach with the kernel set's instruction for a type, without
/// memory or dependencies: the best of those measured before, between and after the measurements. A product is one
/// operation and its addition another.
struct BenchPeak {
  std::string type;            // "f32", "bf16", "int16", "int8"
  std::optional<double> rate;  // empty: the set has no such instruction
};
struct BenchResult {
  std::string kind;  // "prefill" or "decode"
  int batch = 1;
  int first = 0, tokens = 0;        // of each sequence: positions [first, first + tokens)
  Spread tokens_per_second{};       // of all sequences together, over the repeats
  double first_window = 0;          // decode: the same over the first quarter of the steps, median of the repeats
  double last_window = 0;           // and over the last quarter
  double bytes_per_token = 0;       // least that must be read: mean over positions, weights as the model stores them
  double gigabytes_per_second = 0;  // at the median speed
  double share_of_read = 0;         // of BenchReport::read_median
  double gflops = 0;                // 10^9 a second: 2 for each weight and token, the head where logits are computed
  double attention_gflops = 0;      // beside those
  std::string peak;                 // type that the layers' products are computed in
  std::optional<double> share_of_peak{};  // gflops / that peak
};
/// A short run whose logits were computed by portable kernels too.
struct BenchCheck {
  std::string hash, portable_hash;  // FNV-1a 64 of the logits' bytes: sets that fuse multiply-add agree on it
  double difference = 0;            // largest, relative to the largest logit
  double bound = 0;                 // what rounding explains; above it bench throws
  int blocks = 0, tokens = 0;       // the first blocks only, where the model is large
};
struct BenchReport {
  std::string model, cpu, kernels;
  std::string quantization;  // of the blocks' matrices: "4 bits, groups of 128"; empty for a float model
  std::string head;          // "BF16", or as above
  int threads = 0, blocks = 0, context = 0, repeat = 0;
  int64_t weights = 0;       // parameters
  int64_t weight_bytes = 0;  // read for a decoded token, as the model stores them
  int64_t packed_bytes = 0;  // the matrices among them, as the kernels read them
  double read_median = 0;    // GB/s that all threads together read from memory, over passes before, between and after
  double read_best = 0;      // the measurements
  uint64_t read_bytes = 0;   // of a pass
  std::vector<BenchPeak> peaks{};
  BenchCheck check{};
  std::vector<BenchResult> results{};
  double load_seconds = 0, seconds = 0;
};

std::vector<std::string_view> bench_shapes();
/// Measures the machine, compares the model's logits with those of portable kernels, then measures prompts and decoding
/// with random tokens. Throws Error if the logits differ by more than rounding explains.
BenchReport bench(const std::filesystem::path& model, const BenchOptions& options = {},
                  const OnProgress& progress = {});
/// The same for random weights of the shape of a published model, one of bench_shapes(): no file is needed.
BenchReport bench_shape(std::string_view shape, const BenchOptions& options = {}, const OnProgress& progress = {});

// ------------------------------------------------------------------------------------------------------------------
// serve

struct ServeOptions {
  std::string host = "127.0.0.1";
  int port = 8000;        // 0: any that is free
  std::string api_key{};  // that requests must bring; empty: none
  std::string name{};     // of the model in the API; empty: its folder's
  std::string cors{};     // origin whose pages may read replies, "*": any; empty: none
  int sequences = 32;     // answered at once
  int queue = 256;        // requests that may wait; more are refused with 503
  int64_t kv_bytes = 0;   // for keys and values of all; 0: a quarter of the memory that is free
  size_t body_bytes = 16 << 20;
  int connections = 4096;
  int context = 0;         // of a prompt and its answer; 0: the model's
  int answer_seconds = 0;  // that a request may take; 0: as long as it does
  int drain_seconds = 30;  // that answers at work have after a stop
  bool access_log = true;  // a JSON line a request on stderr, without texts
  DeviceOptions device{};
};
struct ServeReport {
  std::string host, model, kernels, placement;
  int port = 0, context = 0, threads = 0;
  int64_t kv_bytes = 0;
  double load_seconds = 0;
};
/// Serves OpenAI's API until `stop` returns true, which is asked ten times a second. `ready` is told when it listens.
/// Throws Error where the model or the address is not good.
void serve(const std::filesystem::path& model, const ServeOptions& options,
           const std::function<void(const ServeReport&)>& ready, const std::function<bool()>& stop,
           const OnProgress& progress = {});

// ------------------------------------------------------------------------------------------------------------------
// engine

struct Message {
  std::string role, content;
};

struct GenerateOptions {
  int max_tokens = 0;      // 0: 256, or what the context leaves after the prompt; more than that is an error
  double temperature = 0;  // 0: greedy
  int top_k = 0;           // 0: all
  double top_p = 1, min_p = 0;
  double repetition_penalty = 1;
  uint64_t seed = 0;
  std::vector<std::string> stop{};  // the text ends before the first of these
};

enum class FinishReason { stop, length, cancelled };

struct Generation {
  std::vector<int32_t> tokens;
  std::string text;
  FinishReason finish = FinishReason::stop;
  int prompt_tokens = 0;
  int reused_tokens = 0;  // of the prompt, already in the cache from the answer before
  double prefill_seconds = 0, decode_seconds = 0;
};
using OnText = std::function<bool(std::string_view piece)>;  // whole UTF-8 characters; false cancels

/// A loaded model. One call at a time; the cache is kept, so that a longer version of the last prompt starts from it.
class Engine {
 public:
  explicit Engine(const std::filesystem::path& model, const DeviceOptions& device = {},
                  const OnProgress& progress = {});
  ~Engine();
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;

  std::vector<int32_t> encode(std::string_view text) const;  // special tokens in the text are plain text
  std::string decode(std::span<const int32_t> tokens) const;
  /// Written by the model's own template, ready for an answer. The text of a special token in a message is plain text,
  /// unless `parse_special`.
  std::vector<int32_t> encode_chat(std::span<const Message> chat, bool parse_special = false) const;
  bool has_chat_template() const;
  GenerateOptions defaults() const;  // from generation_config.json

  Generation generate(std::span<const int32_t> prompt, const GenerateOptions& options, const OnText& on_text = {});

  int context() const;  // tokens the model was made for
  std::string_view kernels() const;
  std::string placement() const;  // of blocks on a GPU and the CPU, with the memory that they take; empty: on the CPU
  int threads() const;
  int64_t bytes_per_token() const;
  int64_t kv_bytes(int positions) const;  // what the KV cache takes once it holds that many tokens

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace awq
