#!/bin/sh
# cuda_visit.sh [MODEL]: all that a short visit to a machine with a GPU should show, in ten minutes: builds for that GPU
# alone, runs the tests on it, checks memory and races, times the program, and prints one table. What each step said is
# left in build/cuda-visit. The limits of all steps add up to 575 seconds. A step that fails or runs out of its time is a row that says so; the others go on.
#
# MODEL, a folder or a .gguf, is timed beside random weights of the shape of Llama-3.1-8B.
set -u
cd "$(dirname "$0")/.."
out=build/cuda-visit
mkdir -p "$out"
table="$out/table.md"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader >"$out/gpu.txt" 2>&1
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .)
if [ -z "$capability" ]; then
  echo "nvidia-smi finds no GPU here: there is nothing to visit" >&2
  exit 1
fi
if [ "$capability" = 90 ]; then capability=90a; fi
printf '| step | result | seconds |\n|---|---|---|\n' >"$table"

# step NAME SECONDS COMMAND...: the command's output goes to a file of that name.
step() {
  name=$1 limit=$2
  shift 2
  begin=$(date +%s)
  if timeout "$limit" "$@" >"$out/$name.txt" 2>&1; then result=passed; else result="failed ($?)"; fi
  printf '| %s | %s | %s |\n' "$name" "$result" "$(($(date +%s) - begin))" >>"$table"
}

step configure 30 cmake --preset cuda -DAWQ_CUDA_ARCHITECTURES="$capability" -DAWQ_BUILD_BENCH=OFF
step build 220 cmake --build --preset cuda --target awq_cli cuda_device_test cuda_test
awq=build/cuda/apps/awq/awq
step doctor 10 "$awq" doctor
step tests 80 build/cuda/tests/cuda_device_test
sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
few='*CudaQuantized*/bits4_groups32_*:*CudaAttention*_case0:CudaBackendTest.*:Steps.AReplay*'
step memcheck 50 "$sanitizer" --tool memcheck --error-exitcode 9 build/cuda/tests/cuda_device_test --gtest_filter="$few"
step racecheck 50 "$sanitizer" --tool racecheck --error-exitcode 9 build/cuda/tests/cuda_device_test --gtest_filter="$few"
bench() { step "$1" 45 "$awq" bench --device cuda --repeat 3 $2; }
bench bench-int4 '--shape llama-3.1-8b --prefill 2048 --context 2048 --batch 1,8,16,64'
bench bench-bf16 '--shape llama-3.1-8b --weights bf16 --prefill 2048 --context 2048 --batch 1,8,16,64'
if [ $# -gt 0 ]; then bench bench-model "$1 --prefill 512 --context 512 --batch 1,8"; fi

cat "$out/gpu.txt" "$table"
tail -n 30 "$out"/bench-*.txt
! grep -q failed "$table"
