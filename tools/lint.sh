#!/bin/sh
# clang-tidy-14 over the library and the program, with the compile commands of the debug build, where each file is one.
set -eu
cd "$(dirname "$0")/.."
cmake --preset debug >/dev/null
# The commands are GCC's; its warning options are not all known to Clang.
run-clang-tidy-14 -quiet -p build/debug -j "$(getconf _NPROCESSORS_ONLN)" -extra-arg=-Wno-unknown-warning-option \
  "$PWD/(src|apps)/"
