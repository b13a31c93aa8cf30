#!/bin/sh
# `make test`: every test of the release build, then the unit tests and the fuzz targets under ASan and UBSan, then one
# summary of both. Its last line is "N passed, N failed, N skipped".
set -eu
cd "$(dirname "$0")/.."
jobs=$(getconf _NPROCESSORS_ONLN)

# The tests of a preset, into its junit.xml. A failing test is the summary's business; a missing junit.xml too.
run() {
  rm -f "build/$1/junit.xml"
  ctest --preset "$1" -j "$jobs" --no-tests=error --output-junit "$PWD/build/$1/junit.xml" || true
}

for preset in release asan; do
  cmake --preset $preset
  cmake --build --preset $preset
done

# Without a network the tests that read these are skipped, and the summary says so.
if path=$(tools/fetch_model.py smollm2-135m); then export AWQ_SMOLLM2_GGUF="$path"; fi
if path=$(tools/fetch_model.py gemma3-270m); then export AWQ_GEMMA3_GGUF="$path"; fi

run release
run asan
exec tools/test_summary.py release=build/release/junit.xml asan=build/asan/junit.xml
