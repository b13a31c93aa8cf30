#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <vector>

namespace awq {

/// What is put around the ids of one text: "post_processor" of tokenizer.json.
struct PostProcessor {
  std::vector<int32_t> before, after;
};

/// A JSON null adds nothing. Throws Error naming the type if it is not implemented.
PostProcessor make_post_processor(const nlohmann::json& spec);

}  // namespace awq
