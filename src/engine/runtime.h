#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <set>

#include "awq/awq.h"
#include "base/parallel.h"
#include "engine/text_source.h"
#include "formats/load.h"
#include "kernels/registry.h"
#include "quant/qmatrix.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace awq {

/// Threads and kernels of one job, and the backend on them.
struct Device {
  /// Throws Error for more threads than this process may use CPUs, and for a device that there is not.
  explicit Device(const DeviceOptions& options, Tiles tiles = Tiles::accurate);
  /// Any number of threads.
  explicit Device(int threads, std::string_view isa, Activations activations = Activations::int16,
                  Tiles tiles = Tiles::accurate)
      : kernels(kernels::select(isa)), pool(threads), backend(cpu_backend(pool, kernels, activations, tiles)) {}
  const kernels::KernelSet& kernels;
  ThreadPool pool;
  std::unique_ptr<Backend> backend;
};

/// How a chat is written out.
struct RenderChat {
  bool add_generation_prompt = false;
  nlohmann::ordered_json tools{}, variables{};  // see ChatTemplate::Options; or null
};

/// Throws Error where `verb` was asked to run on something else than the CPU.
void require_cpu(const DeviceOptions& options, std::string_view verb);

/// A checkpoint's text side: tokenizer, chat template, tokens that end an answer.
class TextSide {
 public:
  explicit TextSide(const Checkpoint& model);  // throws Error if there is no tokenizer
  const Tokenizer& tokenizer() const { return tokenizer_; }
  bool has_template() const { return template_.has_value(); }
  /// Written out by the model's template. Throws Error if it has none.
  MarkedText render_chat(const nlohmann::ordered_json& messages, const RenderChat& options) const;
  MarkedText render_chat(const nlohmann::ordered_json& messages, bool add_generation_prompt) const {
    return render_chat(messages, RenderChat{.add_generation_prompt = add_generation_prompt});
  }
  /// With the template's special tokens in place. Those in messages are plain text.
  std::vector<int32_t> encode_chat(const nlohmann::ordered_json& messages, const RenderChat& options) const {
    return tokenizer_.encode_chat(render_chat(messages, options));
  }
  /// The same, unless `parse_special`: then they are special tokens.
  std::vector<int32_t> encode_chat(const nlohmann::ordered_json& messages, bool add_generation_prompt,
                                   bool parse_special = false) const {
    const MarkedText chat = render_chat(messages, add_generation_prompt);
    return parse_special ? tokenizer_.encode(chat.text(), false, true) : tokenizer_.encode_chat(chat);
  }
  bool ends(int32_t token) const { return ends_.contains(token); }
  const std::set<int32_t>& ends() const { return ends_; }
  /// Whether the template knows <think>, so that answers may begin with what the model thought.
  bool thinks() const { return template_says("<think>"); }
  bool template_says(std::string_view words) const {
    return template_ && template_->source().find(words) != std::string::npos;
  }
  const nlohmann::json& generation_config() const { return generation_config_; }

 private:
  TextSide(const Checkpoint& model, const TextSource& source);

  ChatTemplate::Options template_options_;
  nlohmann::json generation_config_;
  Tokenizer tokenizer_;
  std::optional<ChatTemplate> template_;
  std::set<int32_t> ends_;
};

/// Logits f32 [rows, vocab] of hidden states, on the host.
Tensor head_logits(Backend& dev, const Model& m, const Tensor& hidden);

/// Logits f32 [sequences, vocab] after one more token of each, on the host. Steps of a device that records are
/// replayed.
Tensor step_logits(Backend& dev, const Model& m, std::span<const int32_t> tokens, Batch batch);
/// The `count` largest of them, in falling order, of equals the first; on a device that has Backend::top only they come
/// to the host. Throws Error where there are not so many finite ones.
struct TopLogits {
  std::vector<int32_t> tokens;
  std::vector<float> logits;  // [sequences, count]
};
TopLogits step_top(Backend& dev, const Model& m, std::span<const int32_t> tokens, Batch batch, int count);

constexpr DType kCacheType = DType::bf16;  // of keys and values, for generation, unless --kv says otherwise
constexpr int kPrefillChunk = 512;         // tokens of a prompt at once: enough to reuse weights, little memory
/// Runs tokens that follow the first `position` tokens of `kv` and returns the logits f32 [1, vocab] after the last.
/// `on_chunk` is called after each chunk with how many tokens are done.
/// `length`: see Sequence; 0: what there is after all of them.
Tensor prefill(Backend& dev, const Model& m, KvCache& kv, int position, std::span<const int32_t> tokens,
               const std::function<void(int done)>& on_chunk = {}, int length = 0);
/// The largest RopeSpec::regime of a model's blocks.
int regime(const ModelSpec& spec, int length);

}  // namespace awq
