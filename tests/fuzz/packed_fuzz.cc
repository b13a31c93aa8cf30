// Any safetensors file beside the config.json of a packed format either is a model, whose every matrix can then be
// read, or gives an awq::Error. The first byte chooses the config.
#include <unistd.h>
#include <array>
#include <cstdint>
#include <filesystem>
#include <fstream>

#include "awq/error.h"
#include "formats/format.h"
#include "formats/params.h"

namespace {

using namespace awq;

constexpr const char* kModel =
    R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":32,"intermediate_size":64,
"num_attention_heads":2,"num_key_value_heads":2,"num_hidden_layers":1,"vocab_size":16,"hidden_act":"silu",
"max_position_embeddings":64,"rms_norm_eps":1e-6,"rope_theta":10000.0,"tie_word_embeddings":false,)";
constexpr std::array kQuantizations = {
    R"("quantization_config":{"quant_method":"awq","bits":4,"group_size":16,"zero_point":true,"version":"gemm"}})",
    R"("quantization_config":{"quant_method":"gptq","bits":4,"group_size":16,"checkpoint_format":"gptq_v2"}})",
    R"("quantization_config":{"quant_method":"gptq","bits":8,"group_size":-1,"checkpoint_format":"gptq"}})",
    R"("quantization_config":{"quant_method":"compressed-tensors","format":"pack-quantized","config_groups":{"a":{"weights":
{"num_bits":4,"type":"int","symmetric":false,"strategy":"group","group_size":16}},"b":{"weights":{"num_bits":8,"type":"int",
"symmetric":true,"strategy":"channel","group_size":null}}}}})",
    R"("quantization":{"group_size":32,"bits":4}})",
    R"("quantization_config":{"quant_method":"awq","bits":4,"group_size":32,"version":"gemv"}})",
    R"("quantization_config":{"quant_method":"awq","bits":4,"group_size":32,"version":"gemv_fast"}})",
    R"("quantization_config":{"quant_method":"modelopt","quant_algo":"W4A16_AWQ","group_size":16}})",
    R"("quantization_config":{"quant_method":"awq","bits":4,"group_size":16,"version":"marlin","zero_point":false}})",
    R"("quantization_config":{"quant_method":"fp8","fmt":"e4m3","weight_block_size":[16,24]}})"};

/// One folder for the process, in memory where the system has such a place.
const std::filesystem::path& folder() {
  static const std::filesystem::path path = [] {
    std::error_code ignored;
    const auto root = std::filesystem::exists("/dev/shm", ignored) ? std::filesystem::path("/dev/shm")
                                                                   : std::filesystem::temp_directory_path();
    auto p = root / ("awq-packed-fuzz-" + std::to_string(::getpid()));
    std::filesystem::create_directories(p);
    return p;
  }();
  return path;
}

void write(const char* name, const char* data, size_t size) {
  std::ofstream(folder() / name, std::ios::binary).write(data, std::streamsize(size));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (!size) return 0;
  const std::string config = std::string(kModel) + kQuantizations[data[0] % kQuantizations.size()];
  write("config.json", config.data(), config.size());
  write("model.safetensors", reinterpret_cast<const char*>(data + 1), size - 1);
  try {
    const auto model = Checkpoint::open(folder());
    for (const auto& [block, p] : params_of(model->spec())) model->weight(block, p);
  } catch (const Error&) {
  }
  return 0;
}
