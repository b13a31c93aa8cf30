#pragma once
// The whole public interface: quantize a checkpoint, measure what it cost, or open one and generate.
// Models are folders (Hugging Face safetensors, AutoAWQ) or .gguf files. Everything throws awq::Error.
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
  Cancelled() : Error("cancelled") {}
};

struct Progress {
  std::string_view stage;   // "load", "generate calibration text", "calibrate", "search", "write", "evaluate"
  int done = 0, total = 0;  // blocks, tokens or windows
  double last_error = -1;   // quantize: mean relative output error of the last finished block; < 0: none yet
};
using OnProgress = std::function<bool(const Progress&)>;  // false cancels

struct DeviceOptions {
  int threads = 0;    // 0: one per physical core
  std::string isa{};  // kernel set by name; empty: the best this CPU has, or AWQ_ISA
};

// ----------------------------------------------------------------------------------------------------------------
// quantize

struct QuantizeOptions {
  std::string method = "awq";  // see quantize_methods()
  int group_size = 0;          // 0: 128, or the largest of 64 and 32 that divides every width of the model
  /// Calibration text: .txt, or .jsonl with "text" or chat "messages" a line. Empty: the model writes its own.
  std::filesystem::path calibration{};
  int samples = 0;           // sequences; 0: the recipe's default
  int sample_tokens = 0;     // tokens a sequence; 0: the recipe's default
  double temperature = 1.0;  // of the model's own calibration text
  uint64_t seed = 0;
  DeviceOptions device{};
};

struct LayerReport {
  std::string name;           // "model.layers.3.mlp.down_proj"
  double error = 0;           // relative output error: sum |y' - y|^2 / sum |y|^2 over the calibration tokens
  double rounding_error = 0;  // the same for plain rounding
  double clipped = 0;         // share of groups whose range was cut
  int64_t tokens = 0;         // calibration tokens seen
};
struct GroupReport {
  std::string producer;                // what absorbed the inverse scales
  std::vector<std::string> consumers;  // what was scaled
  double alpha = 0;                    // exponent of the activations' magnitude; 0 without weight term: no scaling
  bool weight_term = false;
  double loss = 0, identity_loss = 0;  // on the group's own measure; loss <= identity_loss
  double smallest_scale = 1, largest_scale = 1;
};
struct CalibrationReport {
  std::string source;  // "self" or the file's name
  std::string sha256;  // of the token ids, little-endian 32-bit
  int sequences = 0, sequence_tokens = 0;
  int64_t texts = 0, tokens_read = 0, tokens_unused = 0;
};
struct QuantizeReport {
  std::vector<LayerReport> layers;
  std::vector<GroupReport> groups;
  CalibrationReport calibration;
  double worst_fold_error = 0;  // relative change of a float block by folding its scales
  int group_size = 0;
  std::string group_size_reason;      // why it is not 128, where it is not
  std::vector<std::string> left_out;  // files and folders beside the model that were not copied: other weights
  uint64_t bytes_in = 0, bytes_out = 0;
  double bits_per_weight = 0;  // of the quantized matrices, scales and zero points included
  double seconds = 0;
};

struct MethodInfo {
  std::string_view name, summary;
};
std::vector<MethodInfo> quantize_methods();

/// Quantizes `model` into the new folder `out` (AutoAWQ GEMM, with awq-report.json). The folder appears complete or not
/// at all. The same model, options and seed give the same bytes for any number of threads on one kernel set.
QuantizeReport quantize(const std::filesystem::path& model, const std::filesystem::path& out,
                        const QuantizeOptions& options = {}, const OnProgress& progress = {});

// ----------------------------------------------------------------------------------------------------------------
// evaluate

struct EvaluateOptions {
  int window = 2048;         // tokens; the text is tokenized once and cut into windows, the tail is dropped
  int windows = 0;           // 0: all
  std::string json_lines{};  // name of the .jsonl file that the text is, for errors; its documents are joined as for
                             // calibration. Empty: plain text
  std::filesystem::path against{};  // the original, for KL and top-1 agreement
  DeviceOptions device{};
};
struct Estimate {
  double value = 0, standard_error = 0;  // over windows
};
struct EvaluateReport {
  int windows = 0, window = 0;
  int64_t text_tokens = 0, predictions = 0;
  std::string model{};
  double perplexity = 0;  // exp of the mean over windows of the mean negative log-likelihood of window - 1 predictions
  double perplexity_error = 0;
  std::vector<double> window_nll{};
  std::optional<Estimate> kl{};    // nats a token, KL(original || model) over the whole vocabulary
  std::optional<Estimate> top1{};  // share of positions where both predict the same token
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
/// Logits f32 [tokens][vocab] of one sequence.
std::vector<float> logits(const std::filesystem::path& model, std::span<const int32_t> tokens,
                          const DeviceOptions& device = {});

// -----------------------------------------------------------------------------------------------------------------
// inspect

struct TensorReport {
  std::string name, type, shape;
  uint64_t bytes = 0;
};
struct InspectReport {
  std::string format, architecture;
  int blocks = 0, dim = 0, vocab = 0, context = 0;
  std::string quantization;    // "4 bits, groups of 64"; empty for a float model
  uint64_t bytes = 0;          // of all files that hold weights
  int64_t weights = 0;         // parameters
  double bits_per_weight = 0;  // all weights
  uint64_t memory = 0;         // of the matrices when the model runs, without the embedding and the KV cache; bytes
  std::vector<TensorReport> tensors;
  std::vector<std::string> side_files;
};
InspectReport inspect(const std::filesystem::path& model);

// ------------------------------------------------------------------------------------------------------------------
// engine

struct Message {
  std::string role, content;
};

struct GenerateOptions {
  int max_tokens = 256;
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
  std::vector<int32_t> encode_chat(
      std::span<const Message> chat) const;  // the model's own template, ready for an answer
  bool has_chat_template() const;
  GenerateOptions defaults() const;  // from generation_config.json

  Generation generate(std::span<const int32_t> prompt, const GenerateOptions& options, const OnText& on_text = {});

  int context() const;  // tokens the model was made for
  std::string_view kernels() const;
  int threads() const;
  int64_t bytes_per_token() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace awq
