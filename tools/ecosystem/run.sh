#!/bin/sh
# make test-ecosystem: run.sh AWQ_BINARY. Loads folders written by awq in transformers with GPTQModel and in vLLM, in
# two virtual environments of the user's cache folder (1.2 and 3.4 GB, made once), and compares logits (check.py).
# torch comes from wherever pip looks: the CPU build is enough, and much smaller, where pip is told of an index that has it.
set -eu
[ $# -eq 1 ] || { echo "usage: run.sh AWQ_BINARY" >&2; exit 2; }
awq=$(realpath "$1")
cd "$(dirname "$0")"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/awq

install() { python3 -m pip --python "$env/bin/python" --disable-pip-version-check install --quiet "$@" >&2; }

# Python of the environment of requirements-$1.txt, which is made again when that file changes.
environment() {
  list=requirements-$1.txt
  env=$cache/venv-$1
  if ! cmp -s "$list" "$env/$list"; then
    echo "ecosystem: installing $list into $env" >&2
    rm -rf "$env"
    python3 -m venv --without-pip "$env"
    install "$(grep '^torch==' "$list")"
    install --no-deps -r "$list"
    cp "$list" "$env/$list"
  fi
  echo "$env/bin/python"
}

# One of GPTQModel's packages is compiled.
header=$(python3 -c 'import sysconfig; print(sysconfig.get_path("include") + "/Python.h")')
[ -f "$header" ] || { echo "ecosystem: $header is missing; install python3-dev" >&2; exit 1; }

transformers=$(environment transformers)
vllm=$(environment vllm)
set -- --golden ../../tests/golden --vllm-python "$vllm" --awq "$awq"
if model=$(../fetch_model.py smollm2-135m); then set -- "$@" --model "$model"; fi
exec "$transformers" check.py "$@"
