#!/bin/sh
# serve.sh AWQ_BINARY [OPTIONS of compare_servers.py]. awq serve beside llama-cpp-python's server and vLLM's, with SmolLM2 as one AutoAWQ
# folder and the same weights as GGUF. Each is in a virtual environment of the user's cache folder, made once, as run.sh says.
# "--only awq,vLLM" leaves the third out, and what it needs.
set -eu
[ $# -ge 1 ] || { echo "usage: serve.sh AWQ_BINARY [OPTIONS of compare_servers.py]" >&2; exit 2; }
awq=$(realpath "$1")
shift
cd "$(dirname "$0")"
. ../environment.sh
case " $* " in *"--only "*llama*) wanted=llama ;; *"--only "*) wanted= ;; *) wanted=llama ;; esac
llama=
if [ "$wanted" ]; then llama=$(llama_environment "$(realpath ..)"); fi
vllm=$(environment ../ecosystem/requirements-vllm.txt)
models=$cache/peers
mkdir -p "$models"
[ -d "$models/smollm2" ] || "$awq" quantize "$(../fetch_model.py smollm2-135m)" -o "$models/smollm2" --method rtn
[ -d "$models/smollm2-q4_1" ] || "$awq" convert "$models/smollm2" -o "$models/smollm2-q4_1" --format gguf-q4_1 --allow rounded-offsets
logs=$(mktemp -d)
exec python3 compare_servers.py --awq "$awq" --model "$models/smollm2" --gguf "$models/smollm2-q4_1/model.gguf" --vllm-python "$vllm" --logs "$logs" \
  ${llama:+--llama-python "$llama"} "$@"
