#include "engine/runtime.h"

#include <bit>

#include "base/cpu.h"
#include "model/cuda_backend.h"

namespace awq {
namespace {

TextSource::Read side_files_of(const Checkpoint& model) {
  return [&model](std::string_view name) { return read_side_file(model, name); };
}

void add_ends(const nlohmann::json& config, std::set<int32_t>& ends) {
  if (!config.is_object() || !config.contains("eos_token_id")) return;
  const nlohmann::json& e = config.at("eos_token_id");
  if (e.is_number_integer()) ends.insert(e.get<int32_t>());
  if (e.is_array())
    for (const auto& id : e)
      if (id.is_number_integer()) ends.insert(id.get<int32_t>());
}

}  // namespace

TextSide::TextSide(const Checkpoint& model) : TextSide(model, TextSource(side_files_of(model))) {}

TextSide::TextSide(const Checkpoint& model, const TextSource& source)
    : template_options_(source.template_options()),
      generation_config_(json_file(side_files_of(model), "generation_config.json")),
      tokenizer_(source.tokenizer()) {
  if (std::string text = source.chat_template(); !text.empty()) template_.emplace(std::move(text));
  add_ends(generation_config_, ends_);
  add_ends(model.config(), ends_);
  for (const char* language : {"text_config", "llm_config"})  // of models with other parts
    if (model.config().contains(language)) add_ends(model.config().at(language), ends_);
  // Gemma names the end of a turn only in its template; Llama 3 and Qwen list theirs, other chat models use these.
  for (const char* end : {"<end_of_turn>", "<|im_end|>", "<|eot_id|>"})
    if (const auto id = tokenizer_.id_of(end)) ends_.insert(*id);
  if (const auto id = tokenizer_.id_of(template_options_.eos_token)) ends_.insert(*id);
}

MarkedText TextSide::render_chat(const nlohmann::ordered_json& messages, const RenderChat& chat) const {
  if (!template_)
    fail("chat", "the model has no chat template, so it was not made for chat; use `awq generate` with plain text");
  ChatTemplate::Options options = template_options_;
  options.add_generation_prompt = chat.add_generation_prompt;
  options.tools = chat.tools;
  options.extra = chat.variables;
  return template_->render_marked(messages, options);
}

namespace {

int allowed_threads(int threads) {
  const int most = max_threads();
  if (threads > most)
    fail("threads",
         "{} threads were asked for, but this process may use {} CPUs; give --threads 1 to {}, or leave it out",
         threads, most, most);
  return threads;
}

std::unique_ptr<Backend> backend_of(const DeviceOptions& options, ThreadPool& pool, const kernels::KernelSet& kernels,
                                    Tiles tiles) {
  if (options.gpu_layers && options.device != "cuda")
    fail("device", "--gpu-layers {}: only a GPU has them; give --device cuda with it", options.gpu_layers);
  if (options.device.empty() || options.device == "cpu")
    return cpu_backend(pool, kernels, activations_of(options.activations), tiles);
  if (options.device == "cuda")
    return split_backend(cuda_backend(pool, cuda::open_device(), options.activations, tiles),
                         cpu_backend(pool, kernels, Activations::int16, tiles), options.gpu_layers,
                         kv_type(options.kv, kCacheType));
  fail("device", "--device: \"{}\" is not known; give cpu or cuda", options.device);
}

}  // namespace

int max_threads() { return usable_cpus(); }

Device::Device(const DeviceOptions& options, Tiles tiles)
    : kernels(kernels::select(options.isa)),
      pool(allowed_threads(options.threads)),
      backend(backend_of(options, pool, kernels, tiles)) {}

void require_cpu(const DeviceOptions& options, std::string_view verb) {
  if (options.device.empty() || options.device == "cpu") return;
  fail(verb, "device \"{}\" was asked for, but {} runs on the CPU alone; leave it out", options.device, verb);
}

Tensor prefill(Backend& dev, const Model& m, KvCache& kv, int position, std::span<const int32_t> tokens,
               const std::function<void(int)>& on_chunk, int length) {
  Tensor last;
  if (!length) length = position + int(tokens.size());
  for (size_t at = 0; at < tokens.size(); at += kPrefillChunk) {
    const auto chunk = tokens.subspan(at, std::min<size_t>(kPrefillChunk, tokens.size() - at));
    const Sequence s{&kv, position + int(at), int(chunk.size()), length};
    const Tensor hidden = hidden_forward(dev, m, chunk, {&s, 1});
    last = hidden.rows(s.tokens - 1, s.tokens);
    if (on_chunk) on_chunk(int(at) + s.tokens);
  }
  return head_logits(dev, m, last);
}

int regime(const ModelSpec& spec, int length) {
  int largest = 0;
  for (const BlockSpec& b : spec.blocks) largest = std::max(largest, b.attention.rope.regime(length));
  return largest;
}

namespace {

Tensor logits_of_hidden(Backend& dev, const Model& m, const Tensor& hidden) {
  Tensor logits = dev.empty({hidden.shape()[0], m.head->rows()});
  (*m.head)(hidden, logits);
  if (m.spec.logit_cap != 0) dev.soft_cap(logits, m.spec.logit_cap);
  return logits;
}

}  // namespace

Tensor head_logits(Backend& dev, const Model& m, const Tensor& hidden) {
  return dev.host(logits_of_hidden(dev, m, hidden));
}

Tensor step_logits(Backend& dev, const Model& m, std::span<const int32_t> tokens, Batch batch) {
  const PassEnd head{1, [&](const Tensor& hidden) { return logits_of_hidden(dev, m, hidden); }};
  return dev.host(step_forward(dev, m, tokens, batch, head));
}

TopLogits step_top(Backend& dev, const Model& m, std::span<const int32_t> tokens, Batch batch, int count) {
  const PassEnd top{1 + count, [&](const Tensor& hidden) { return dev.top(logits_of_hidden(dev, m, hidden), count); }};
  const Tensor found = dev.host(step_forward(dev, m, tokens, batch, top));
  const auto values = found.as<float>();
  TopLogits t{{}, {values.begin(), values.begin() + long(values.size() / 2)}};
  for (const float place : values.subspan(values.size() / 2)) {
    t.tokens.push_back(std::bit_cast<int32_t>(place));
    if (t.tokens.back() >= m.head->rows())
      fail("generate", "fewer than {} logits are finite: the model is damaged, or its activations overflow", count);
  }
  return t;
}

}  // namespace awq
