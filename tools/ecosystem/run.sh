#!/bin/sh
# make test-ecosystem: run.sh AWQ_BINARY [--cheap], or run.sh --cheap-packages. Compares tokens with those of the tokenizers and sentencepiece libraries
# (text.py; AWQ_TOKENIZERS or ../shared/data/tokenizers beside the checkout is where tokenizer.json files are). Then loads what awq writes in
# programs that we did not write, and what they write in awq: AutoAWQ folders (check.py), the formats that awq convert writes
# (formats.py), GGUF (gguf_files.py), and files of other programs (theirs.py). vLLM's OpenAI server has folders of awq's (vllm_server.py). A real model is quantized for that. AutoAWQ itself
# quantizes tiny models beside awq --variant autoawq (autoawq_codes.py). Clients of OpenAI's API run against awq serve (clients.py;
# AWQ_HELLASWAG or ../shared/data/zeroshot beside the checkout is where HellaSwag's text is). awq eval beside lm-eval with transformers
# (lm_eval_reference.py, 500 items of each task of AWQ_DATA or ../shared/data beside the checkout; two hours on 2 cores; without the folder a few
# items made there), and its perplexity beside transformers' and llama.cpp's (perplexity_reference.py, llama_perplexity.py; with the folder).
#
# Each program has a virtual environment in the user's cache folder, made once: transformers with GPTQModel and compressed-tensors 1.2 GB,
# vLLM 3.4 GB, AutoAWQ 2 GB, lm-eval 1.8 GB, openai and guidellm 1.5 GB, MLX, and llama.cpp, which is compiled. With --cheap there are tiny models alone, and no vLLM, AutoAWQ
# and llama.cpp; --cheap-packages makes the environments of these and runs nothing. Where all
# programs were run and nothing failed, docs/compatibility.md is written, before awq eval's turn, which has pages of its own.
set -eu
case $#${2-} in 1) cheap= ;; 2--cheap) cheap=1 ;; *) echo "usage: run.sh AWQ_BINARY [--cheap] | run.sh --cheap-packages" >&2; exit 2 ;; esac
awq=$(realpath -m -- "$1") packages=
if [ "$1" = --cheap-packages ]; then cheap=1 packages=1; fi
cd "$(dirname "$0")"
. ../environment.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rows=$work/rows.jsonl

# One of GPTQModel's packages is compiled.
header=$(python3 -c 'import sysconfig; print(sysconfig.get_path("include") + "/Python.h")')
[ -f "$header" ] || { echo "ecosystem: $header is missing; install python3-dev" >&2; exit 1; }

text=$(environment requirements-text.txt)
transformers=$(environment requirements-transformers.txt)
mlx=$(environment requirements-mlx.txt)
[ -z "$packages" ] || exit 0
set -- --awq "$awq"
tokenizers=${AWQ_TOKENIZERS:-../../../shared/data/tokenizers}
if [ -d "$tokenizers" ]; then set -- "$@" --tokenizers "$tokenizers"; fi
"$text" text.py "$@"

vllm= autoawq= llama=
if [ -z "$cheap" ]; then
  vllm=$(environment requirements-vllm.txt)
  autoawq=$(environment requirements-autoawq.txt)
  OMP_NUM_THREADS=1 "$autoawq" autoawq_codes.py --awq "$awq"
  llama=$(llama_environment "$(realpath ..)")
fi

set -- --awq "$awq" --rows "$rows"
if [ -z "$cheap" ]; then
  model=$(../fetch_model.py smollm2-135m)
  real=$work/smollm2-awq
  # A little text is enough: the numbers must be AWQ's (scales folded, ranges clipped), not good.
  cat check.py loaders.py awq_folder.py > "$work/calibration.txt"
  "$awq" quantize "$model" -o "$real" --calib "$work/calibration.txt" --samples 4 --tokens 256 --answers 0
  set -- "$@" --real "$real"
fi
golden=../../tests/golden
"$transformers" check.py "$@" --golden $golden ${vllm:+--vllm-python "$vllm"}
"$transformers" formats.py "$@" --golden $golden ${vllm:+--vllm-python "$vllm"} --mlx-python "$mlx"
"$transformers" gguf_files.py "$@" --golden $golden ${llama:+--llama-python "$llama"}
[ -z "$cheap" ] || exit 0
more=$(../fetch_model.py gemma3-270m)
"$transformers" theirs.py --awq "$awq" --rows "$rows" --model "$model" --more "$more" --mlx-python "$mlx" --autoawq-python "$autoawq" --llama-python "$llama"
"$transformers" vllm_server.py --awq "$awq" --rows "$rows" --model "$real" --vllm-python "$vllm"
clients=$(environment requirements-clients.txt)
lmeval=$(environment requirements-lmeval.txt)
set -- --awq "$awq" --rows "$rows" --model "$real" --lmeval-python "$lmeval" --vllm-python "$vllm"
hellaswag=${AWQ_HELLASWAG:-../../../shared/data/zeroshot/hellaswag_val_full.txt}
if [ -f "$hellaswag" ]; then set -- "$@" --data "$(realpath "$hellaswag")"; fi
OMP_NUM_THREADS=1 "$clients" clients.py "$@"
python3 page.py "$rows" ../../docs/compatibility.md

floats=$work/smollm2-floats
"$awq" convert "$model" -o "$floats" --format hf
data=${AWQ_DATA:-../../../shared/data}
set -- --awq "$awq" --model "$floats" --limit 500
if [ -d "$data/zeroshot" ]; then set -- "$@" --data "$(realpath "$data/zeroshot")"; fi
"$lmeval" lm_eval_reference.py "$@"
wiki=$data/text/wiki.test.raw
if [ -f "$wiki" ]; then
  "$lmeval" perplexity_reference.py --awq "$awq" --model "$floats" --text "$wiki" --windows 4
  "$llama" llama_perplexity.py --awq "$awq" --model "$model" --text "$wiki" --windows 4 --float32
  "$llama" llama_perplexity.py --awq "$awq" --model "$model" --text "$wiki" --windows 4
else
  echo "ecosystem: $wiki is not there, so no perplexity was compared" >&2
fi
