#!/bin/sh
# Writes docs/models.md: every fixture of tests/golden measured by the test that also judges it.
# usage: models_page.sh BUILD_DIR      (of a release build; takes a few seconds)
set -eu
cd "$(dirname "$0")/.."
rows=$(mktemp)
trap 'rm -f "$rows"' EXIT
AWQ_MODELS_ROWS="$rows" "$1/tests/engine_test" --gtest_brief=1 --gtest_filter='*Family.FourBitsAreNotWorseThanRounding*'
{
  sed '/^| ---/q' docs/models.md
  LC_ALL=C sort "$rows"
} > docs/models.md.new
mv docs/models.md.new docs/models.md
