#!/bin/sh
# Installs what the build and the tests need from the distribution's packages; with the argument "arm", also what
# `make test-arm` needs, for which dpkg must accept packages of arm64. Calls apt only when something is missing.
set -eu

packages="make g++ cmake ninja-build ccache pkg-config binutils time python3-pip \
nlohmann-json3-dev libcli11-dev libfmt-dev libpcre2-dev libutf8proc-dev libssl-dev libcurl4-openssl-dev libboost-dev libsimde-dev \
libgtest-dev libbenchmark-dev clang-14 clang-tidy-14 clang-format-14 libclang-rt-14-dev"
if [ "${1:-}" = arm ]; then
  packages="$packages g++-aarch64-linux-gnu qemu-user-static \
libfmt-dev:arm64 libpcre2-dev:arm64 libutf8proc-dev:arm64 libssl-dev:arm64 libcurl4-openssl-dev:arm64 libgtest-dev:arm64"
fi

say() { echo "setup: $*" >&2; }

other_distribution() {
  say "no dpkg here, so nothing is installed. Needed: GCC 12 or later (or Clang 14), CMake 3.25, Ninja, pkg-config and the"
  say "libraries nlohmann-json, CLI11, fmt, PCRE2, utf8proc, OpenSSL, libcurl, Boost (headers), SIMDe; for the tests also GoogleTest, Google Benchmark,"
  say "Clang 14 with its sanitizer runtimes, and clang-format 14. ccache is used when it is there."
  absent=
  for tool in c++ cmake ninja pkg-config; do
    command -v "$tool" >/dev/null || absent="$absent $tool"
  done
  [ -z "$absent" ] && exit 0
  say "not found:$absent"
  exit 1
}

# The packages of the list that are not installed, one a line. Those of another architecture end in ":" and its name.
missing() {
  # dpkg-query fails when it has never heard of a package, and still prints the others.
  # shellcheck disable=SC2086
  { dpkg-query -W -f '${db:Status-Status} ${Package} ${Architecture}\n' $packages 2>/dev/null || true; } |
    awk -v all="$packages" -v here="$(dpkg --print-architecture)" '
      $1 == "installed" { have[$3 == here || $3 == "all" ? $2 : $2 ":" $3] = 1 }
      END { n = split(all, name); for (i = 1; i <= n; i++) if (!(name[i] in have)) print name[i] }'
}

# Prints what runs a command as root ("" when we are), or fails. sudo may ask for a password only at a terminal.
root_command() {
  [ "$(id -u)" -eq 0 ] && return 0
  command -v sudo >/dev/null || return 1
  if [ -t 0 ] || sudo -n true 2>/dev/null; then echo sudo; else return 1; fi
}

command -v dpkg-query >/dev/null || other_distribution
need=$(missing | tr '\n' ' ')
[ -z "$need" ] && exit 0

if ! as_root=$(root_command); then
  say "packages are missing, and neither root nor sudo is available to install them. As root, run:"
  case $need in *:arm64*) echo "dpkg --add-architecture arm64" >&2 ;; esac
  echo "apt-get update && apt-get install -y --no-install-recommends $need" >&2
  exit 1
fi
say "installing $need"
apt="$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0"
case $need in *:arm64*) $as_root dpkg --add-architecture arm64 ;; esac
$apt update >&2
# shellcheck disable=SC2086
if ! $apt install -y --no-install-recommends $need >&2; then
  say "apt-get could not install all of: $need"
  say "Debian 12 and distributions made from it have them; on another one, install their counterparts by hand."
  exit 1
fi
