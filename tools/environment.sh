# Sourced by scripts that run other people's programs.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/awq

install() { python3 -m pip --python "$env/bin/python" --disable-pip-version-check install --quiet "$@" >&2; }

# Python of the virtual environment of the file requirements-NAME.txt, kept in the user's cache folder and made again when
# that file changes. The file is the whole list; torch alone is installed with what it needs. It comes from wherever pip
# looks: the CPU build is enough, and much smaller, where pip is told of an index that has it.
environment() {
  list=$1
  env=$cache/venv-$(basename "${list#*requirements-}" .txt)
  if ! cmp -s "$list" "$env/$(basename "$list")"; then
    echo "installing $list into $env" >&2
    rm -rf "$env"
    python3 -m venv --without-pip "$env"
    if torch=$(grep '^torch==' "$list"); then install "$torch"; fi
    install --no-deps -r "$list"
    cp "$list" "$env/"
  fi
  echo "$env/bin/python"
}

# Python of an environment with llama.cpp, compiled for this CPU (a quarter of an hour on 2 cores). A wheel that pip kept may be
# of another machine or without the header.
llama_environment() {
  peers=$1/peers
  CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF" CXXFLAGS="-include $peers/gcc_amx.h" PIP_NO_CACHE_DIR=1 \
    environment "$peers/requirements-llama.txt"
}
