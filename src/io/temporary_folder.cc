#include "io/temporary_folder.h"

#include <stdlib.h>

#include <cerrno>

#include "io/file.h"

namespace awq {

namespace fs = std::filesystem;

TemporaryFolder::TemporaryFolder() : path_((fs::temp_directory_path() / "awq-XXXXXX").string()) {
  if (!::mkdtemp(path_.data())) fail_system("write", path_, errno);
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace awq
