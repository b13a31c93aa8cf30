#!/bin/sh
# test.sh PRESET...: builds and tests each preset, then sums them up. The last line is "N passed, N failed, N skipped".
# `make test` gives "release asan": every test of the release build, then the unit tests and the fuzz targets under ASan
# and UBSan. `make test-arm` gives "arm": the unit tests on AArch64.
set -eu
cd "$(dirname "$0")/.."
jobs=$(getconf _NPROCESSORS_ONLN)

# The tests of a preset, into its junit.xml. A failing test is the summary's business; a missing junit.xml too.
run() {
  rm -f "build/$1/junit.xml"
  ctest --preset "$1" -j "$jobs" --no-tests=error --output-junit "$PWD/build/$1/junit.xml" || true
}

for preset in "$@"; do
  cmake --preset "$preset"
  cmake --build --preset "$preset"
done

# Without a network the tests that read these are skipped, and the summary says so. Only the release build has such.
case " $* " in *" release "*)
  if path=$(tools/fetch_model.py smollm2-135m); then export AWQ_SMOLLM2_GGUF="$path"; fi
  if path=$(tools/fetch_model.py gemma3-270m); then export AWQ_GEMMA3_GGUF="$path"; fi
  ;;
esac

for preset in "$@"; do
  run "$preset"
  shift
  set -- "$@" "$preset=build/$preset/junit.xml"
done
exec tools/test_summary.py "$@"
