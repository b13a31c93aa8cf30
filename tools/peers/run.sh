#!/bin/sh
# make bench-peers: run.sh AWQ_BINARY [OPTIONS of compare.py]. awq beside llama.cpp and vLLM, each in a virtual environment of
# the user's cache folder, made once: llama.cpp is compiled for this CPU (a quarter of an hour on 2 cores), vLLM is 3.4 GB.
# The models take 6.5 GB there. "run.sh --self-test" checks what can be checked without vLLM.
set -eu
[ $# -ge 1 ] || { echo "usage: run.sh AWQ_BINARY [OPTIONS of compare.py] | --self-test" >&2; exit 2; }
[ "$1" = --self-test ] || awq=$(realpath "$1")
cd "$(dirname "$0")"
. ../environment.sh

llama=$(llama_environment "$(realpath ..)")
if [ "$1" = --self-test ]; then
  "$llama" compare.py --self-test
  "$llama" compare_servers.py --self-test
  exec "$llama" models.py --self-test
fi
shift
vllm=$(environment ../ecosystem/requirements-vllm.txt)
models=$cache/peers
"$llama" models.py llama-3.2-1b "$models/llama-3.2-1b"
[ -d "$models/smollm2" ] || "$awq" quantize "$(../fetch_model.py smollm2-135m)" -o "$models/smollm2" --method rtn
exec python3 compare.py --awq "$awq" --llama-python "$llama" --vllm-python "$vllm" --shape "$models/llama-3.2-1b" \
  --smollm2 "$models/smollm2" "$@"
