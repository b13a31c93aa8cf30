#!/bin/sh
# make test-ecosystem: run.sh AWQ_BINARY. Compares tokens with those of the tokenizers and sentencepiece libraries (text.py;
# AWQ_TOKENIZERS or ../shared/data/tokenizers beside the checkout is where tokenizer.json files are). Then loads folders written by awq in transformers with GPTQModel and in vLLM, in
# two virtual environments of the user's cache folder (1.2 and 3.4 GB, made once), and compares logits (check.py). Then does the
# same with the formats that awq convert writes (formats.py), with a third environment for MLX, and writes docs/compatibility.md.
# Before that AutoAWQ quantizes tiny models in an environment of its own, beside awq --variant autoawq (autoawq_codes.py).
set -eu
[ $# -eq 1 ] || { echo "usage: run.sh AWQ_BINARY" >&2; exit 2; }
awq=$(realpath "$1")
cd "$(dirname "$0")"
. ../environment.sh

text=$(environment requirements-text.txt)
set -- --awq "$awq"
tokenizers=${AWQ_TOKENIZERS:-../../../shared/data/tokenizers}
if [ -d "$tokenizers" ]; then set -- "$@" --tokenizers "$tokenizers"; fi
"$text" text.py "$@"

autoawq=$(environment requirements-autoawq.txt)
OMP_NUM_THREADS=1 "$autoawq" autoawq_codes.py --awq "$awq"

# One of GPTQModel's packages is compiled.
header=$(python3 -c 'import sysconfig; print(sysconfig.get_path("include") + "/Python.h")')
[ -f "$header" ] || { echo "ecosystem: $header is missing; install python3-dev" >&2; exit 1; }

transformers=$(environment requirements-transformers.txt)
vllm=$(environment requirements-vllm.txt)
set -- --golden ../../tests/golden --vllm-python "$vllm" --awq "$awq"
if model=$(../fetch_model.py smollm2-135m); then set -- "$@" --model "$model"; fi
"$transformers" check.py "$@"
mlx=$(environment requirements-mlx.txt)
exec "$transformers" formats.py --awq "$awq" --golden ../../tests/golden --vllm-python "$vllm" --mlx-python "$mlx" --out ../../docs/compatibility.md
