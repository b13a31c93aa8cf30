#!/bin/sh
# fuzz.sh RUNS [TARGET...]: gives each fuzz target of the build with AddressSanitizer (build/asan) so many
# inputs, from its seeds and a seed of chance that changes every day (or FUZZ_SEED), and prints a line of docs/security.md for each: how many
# it had, seconds, covered edges. What it finds stays in build/asan/found, and the exit status is 1. An input has 20 seconds of the clock, or
# FUZZ_TIMEOUT: more where the machine is so busy that a process may stand still that long.
set -u
[ $# -ge 1 ] || { sed -n '2,6s/^# //p' "$0" >&2; exit 2; }
runs=$1
shift
cd "$(dirname "$0")/.." || exit 2
folder=build/asan/tests/fuzz found=build/asan/found
[ -d "$folder" ] || { echo "fuzz: $folder is missing; run: cmake --preset asan && cmake --build --preset asan --target fuzz_targets" >&2; exit 2; }
[ $# -gt 0 ] || set -- $(ls "$folder" | sed -n 's/_fuzz$//p')
mkdir -p "$found"
status=0
for target; do
  corpus=$(mktemp -d)
  cp tests/fuzz/corpus/"$target"/* "$corpus" 2>/dev/null
  log=$found/$target.log
  begin=$(date +%s)
  if "$folder/${target}_fuzz" -runs="$runs" -seed="${FUZZ_SEED:-$(date +%Y%m%d)}" -timeout="${FUZZ_TIMEOUT:-20}" -rss_limit_mb=2048 -max_len=65536 \
    -artifact_prefix="$found/$target-" "$corpus" > "$log" 2>&1; then
    result="none"
  else
    result="see $found/$target-*" status=1
  fi
  had=$(sed -n 's/^#\([0-9][0-9]*\).*/\1/p' "$log" | tail -1)
  echo "| $target | ${had:-0} | $(($(date +%s) - begin)) s | $(sed -n 's/.*cov: \([0-9]*\).*/\1/p' "$log" | tail -1) | $result |"
  rm -rf "$corpus"
done
exit $status
