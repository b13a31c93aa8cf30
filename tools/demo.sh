#!/bin/sh
# `make demo`: quantizes a real model with no options, prints what that cost, and asks the result a question.
# Usage: tools/demo.sh AWQ, the built program. What it makes stays in the user's cache folder, for the next time.
set -eu
tools=$(cd "$(dirname "$0")" && pwd)
awq=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
question="What is the capital of France, and what is it known for?"

model=$("$tools/fetch_model.py" smollm2-135m)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/awq/demo
mkdir -p "$cache"
cd "$cache"
original=$(basename "$model")
ln -sf "$model" "$tools/../docs/demo-text.txt" .

# Prints a command as it could be typed in $cache, and runs it.
show() {
  printf '\n$ awq'
  for word; do case $word in *\ *) printf ' "%s"' "$word" ;; *) printf ' %s' "$word" ;; esac; done
  printf '\n'
  "$awq" "$@"
}

# quantized NAME OPTION...: made once for each build of the program. A folder that exists is complete.
quantized() {
  name=$1
  shift
  if [ -n "$(find "$name/config.json" -newer "$awq" 2>/dev/null)" ]; then
    printf '\n%s is there from the last time\n' "$name"
  else
    rm -rf "$name"
    show quantize "$original" -o "$name" "$@"
  fi
}

printf '\nIn %s:\n' "$cache"
quantized smollm2-rounding --method rtn
quantized smollm2-awq
show compare "$original" smollm2-rounding smollm2-awq --text demo-text.txt --windows 3
show generate smollm2-awq --chat -p "$question" -n 96

cat <<END

Go on with
  $awq chat $cache/smollm2-awq
  $awq inspect $cache/smollm2-awq
  $awq eval $cache/smollm2-awq --against $model --text YOUR_TEXT.txt
  $awq quantize YOUR_MODEL -o YOUR_MODEL-awq      (a folder with safetensors, or a .gguf file)
  $awq --help
END
