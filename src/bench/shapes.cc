#include "bench/shapes.h"

#include <nlohmann/json.hpp>

#include "base/check.h"

namespace awq {
namespace {

struct NamedShape {
  std::string_view name, config;
};

constexpr NamedShape kShapes[] = {
    {"smollm2-135m", R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 576, "intermediate_size": 1536,
      "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
      "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 100000, "hidden_act": "silu",
      "tie_word_embeddings": true})"},
    {"llama-3.2-1b", R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 2048, "intermediate_size": 8192,
      "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
      "vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000,
      "rope_scaling": {"rope_type": "llama3", "factor": 32, "low_freq_factor": 1, "high_freq_factor": 4,
      "original_max_position_embeddings": 8192}, "hidden_act": "silu", "tie_word_embeddings": true})"},
    {"qwen3-4b", R"({"architectures": ["Qwen3ForCausalLM"], "hidden_size": 2560, "intermediate_size": 9728,
      "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
      "vocab_size": 151936, "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "rope_theta": 1000000,
      "hidden_act": "silu", "tie_word_embeddings": true})"},
    {"llama-2-7b", R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 11008,
      "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000,
      "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000, "hidden_act": "silu",
      "tie_word_embeddings": false})"},
    {"llama-3.1-8b", R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336,
      "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
      "vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000,
      "rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
      "original_max_position_embeddings": 8192}, "hidden_act": "silu", "tie_word_embeddings": false})"},
};

}  // namespace

std::vector<std::string_view> shape_names() {
  std::vector<std::string_view> names;
  for (const NamedShape& s : kShapes) names.push_back(s.name);
  return names;
}

nlohmann::json shape_config(std::string_view name) {
  for (const NamedShape& s : kShapes)
    if (s.name == name) return nlohmann::json::parse(s.config);
  fail("bench", "--shape \"{}\" is not known; this version has {}", name, fmt::join(shape_names(), ", "));
}

}  // namespace awq
