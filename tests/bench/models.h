#pragma once
#include <nlohmann/json.hpp>

#include "bench/random_model.h"
#include "engine/runtime.h"

namespace awq {

inline nlohmann::json tiny_config(int blocks = 3) {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"hidden_size", 128},
          {"intermediate_size", 256},
          {"num_hidden_layers", blocks},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"vocab_size", 300},
          {"max_position_embeddings", 512},
          {"rms_norm_eps", 1e-5},
          {"hidden_act", "silu"},
          {"tie_word_embeddings", false}};
}

/// A random model on some kernels, and those of its own that the check compares with.
struct Loaded {
  explicit Loaded(const kernels::KernelSet& set, const nlohmann::json& config = tiny_config(), int threads = 2,
                  const std::optional<QuantSpec>& head = {}, Activations activations = Activations::int16)
      : pool(threads),
        backend(cpu_backend(pool, set, activations)),
        checkpoint(random_model(config, groups_of(32), head, 1, pool)),
        model(load_model(*backend, *checkpoint)) {}
  ThreadPool pool;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Checkpoint> checkpoint;
  Model model;
};

}  // namespace awq
