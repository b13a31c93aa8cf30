# Short names for the project's scripts; the build itself is CMake's (see CMakePresets.json).
AWQ := build/release/apps/awq/awq
PREFIX ?= /usr/local
export CMAKE_CXX_COMPILER_LAUNCHER = $(shell command -v ccache)
# What another checkout has compiled is found again.
export CCACHE_BASEDIR = $(CURDIR)
export CCACHE_NOHASHDIR = 1

.PHONY: help setup build demo test test-arm test-cuda test-ecosystem bench bench-peers format lint install clean
help:
	@echo 'make demo            install what is missing, build, quantize a real 135M model, compare, and chat with it'
	@echo 'make test            install what is missing, build, run every test'
	@echo 'make test-arm        build for AArch64 and run the unit tests in QEMU'
	@echo 'make test-cuda       on a machine with an NVIDIA GPU: build for it, test, check for races, time; one table'
	@echo 'make build           build $(AWQ)'
	@echo 'make bench           build and run the benchmarks'
	@echo 'make bench-peers     time awq beside llama.cpp and vLLM (downloads several GB, compiles llama.cpp)'
	@echo 'make test-ecosystem  load what we write in programs that we did not write (downloads several GB)'
	@echo 'make format          format the sources'
	@echo 'make lint            check format and run clang-tidy'
	@echo 'make install         install under PREFIX=$(PREFIX)'
	@echo 'make clean           remove build/'

setup:
	@tools/setup.sh

build: setup
	cmake --preset release
	cmake --build --preset release

demo: build
	tools/demo.sh $(AWQ)

test: setup
	@tools/test.sh release asan

test-arm:
	@tools/setup.sh arm
	@tools/test.sh arm

test-cuda:
	@tools/setup.sh
	tools/cuda_visit.sh

test-ecosystem: build
	tools/ecosystem/run.sh $(AWQ)

bench: build
	set -e; for b in build/release/bench/*_bench; do $$b; done

bench-peers: build
	tools/peers/run.sh $(AWQ)

format: setup
	tools/format.sh -i

lint: setup
	tools/format.sh --dry-run -Werror
	tools/lint.sh

install: build
	cmake --install build/release --prefix $(PREFIX)

clean:
	rm -rf build
