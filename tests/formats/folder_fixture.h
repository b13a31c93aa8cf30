#pragma once
// Tiny model folders, made by our own writer and then broken on purpose.
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <map>

#include "awq/error.h"
#include "formats/format.h"
#include "formats/params.h"
#include "io/file.h"
#include "io/safetensors.h"

namespace awq {

using TensorMap = std::map<std::string, Tensor>;

/// Qwen2: biases on q, k and v, and sizes that differ from each other wherever the family allows it.
inline nlohmann::json tiny_config() {
  return nlohmann::json::parse(R"({
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 32, "intermediate_size": 64,
    "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2, "vocab_size": 24, "hidden_act": "silu",
    "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": false,
    "torch_dtype": "bfloat16"})");
}

/// Values that name their tensor and place, exact in every float type: multiples of 1/32 below 4.
inline Tensor numbered(Shape shape, DType dtype, size_t salt) {
  Tensor t = Tensor::empty(shape, DType::f32);
  auto v = t.as<float>();
  for (size_t i = 0; i < v.size(); ++i) v[i] = float(int((i * 37 + salt * 11) % 255) - 127) / 32.f;
  return t.to(dtype);
}

class FolderTest : public testing::Test {
 protected:
  FolderTest() : root_(std::filesystem::temp_directory_path() / ("awq-formats-test-" + std::to_string(::getpid()))) {
    std::filesystem::create_directory(root_);
  }
  ~FolderTest() override { std::filesystem::remove_all(root_); }

  std::filesystem::path make(const std::string& folder, const nlohmann::json& config, const TensorMap& tensors) const {
    AtomicDir dir(root_ / folder);
    SafetensorsFolderWriter writer(dir, 200 * tensors.size() + 100 * 200, 1 << 30);
    for (const auto& [name, tensor] : tensors) writer.put(name, tensor);
    writer.finish();
    dir.write("config.json", config.dump());
    dir.commit();
    return root_ / folder;
  }
  void write(const std::string& file, std::string_view text) const { std::ofstream(root_ / file) << text; }

  /// The Error's message with the test's folder written as D.
  std::string message(const std::function<void()>& f) const {
    try {
      f();
    } catch (const Error& e) {
      std::string text = e.what();
      for (size_t at; (at = text.find(root_.string())) != text.npos;) text.replace(at, root_.string().size(), "D");
      return text;
    }
    return "no error";
  }
  std::string open_error(const std::filesystem::path& path) const {
    return message([&] { Checkpoint::open(path); });
  }

  std::filesystem::path root_;
};

inline ModelSpec spec_of(const nlohmann::json& config) {
  return find_architecture(config.at("architectures").at(0).get<std::string>()).parse(config);
}

/// Every tensor of a float folder.
inline TensorMap float_tensors(const nlohmann::json& config, DType dtype) {
  const ModelSpec spec = spec_of(config);
  TensorMap tensors;
  for (const auto& [block, param] : params_of(spec)) {
    const std::string base = base_name(spec, block, param);
    const Shape shape = shape_of(spec, block, param);
    tensors[base + ".weight"] = numbered(shape, dtype, tensors.size());
    if (has_bias(spec, block, param)) tensors[base + ".bias"] = numbered({shape[0]}, dtype, tensors.size());
  }
  return tensors;
}

inline bool same(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() && std::equal(a.data(), a.data() + a.bytes(), b.data());
}

}  // namespace awq
