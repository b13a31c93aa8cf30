#include "quantizer/hidden_files.h"

namespace awq {

HiddenFiles::HiddenFiles(const std::filesystem::path& folder, int64_t tokens, int length, int64_t dim)
    : tokens_(tokens), length_(length), files_{{folder / "hidden-0", dim}, {folder / "hidden-1", dim}} {}

HiddenStates HiddenFiles::around(int block, bool last) {
  const ScratchFile* in = &files_[block % 2];
  ScratchFile* out = &files_[1 - block % 2];
  HiddenStates states{tokens_, length_, [in](int64_t begin, int64_t end) { return in->read(begin, end); }, {}};
  if (!last) states.write = [out](int64_t begin, const Tensor& x) { out->write(begin, x); };
  return states;
}

}  // namespace awq
