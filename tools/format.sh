#!/bin/sh
# clang-format-14 with the given options over every source file.
set -eu
cd "$(dirname "$0")/.."
find apps bench include src tests \( -name '*.h' -o -name '*.cc' -o -name '*.cu' \) -print0 | xargs -0 clang-format-14 "$@"
