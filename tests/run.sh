#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds, runs every test. The last line is 'N passed, N failed, N skipped'.
set -euo pipefail

usage() {
  cat <<'END'
usage: tests/run.sh [--quick] [--clang] [--sanitize] [--every-gpu] [--build DIR] [-j N]

  --quick       without what takes long: the C API's tests, installing, the CUDA backend
  --clang       build with clang instead of gcc
  --sanitize    build with the address and undefined behaviour sanitizers
  --every-gpu   compile the CUDA backend for all generations; otherwise for those three whose code differs
  --build DIR   build there; otherwise in build/release, build/release-clang, ...
  -j N          compile N files at a time; otherwise as many as there are cores

The CUDA backend is built where nvcc is, by gcc's build alone; its kernels are tested on the CPU, by an emulator, in every build.

GPTQ_TEST_DATA names the folder of reference checkpoints and tokenizers; tests that need it are skipped where it is not set.
GPTQ_TEST_SEED gives the random tests other seeds than their usual ones.
END
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
compiler=gcc sanitize=no quick=no archs=75,80,90 build='' jobs=$(nproc)
while [[ $# -gt 0 ]]; do
  case $1 in
    --quick) quick=yes ;;
    --clang) compiler=clang ;;
    --sanitize) sanitize=yes ;;
    --every-gpu) archs=75,80,86,89,90,100,120 ;;
    --build) build=${2:?--build needs a folder}; shift ;;
    -j) jobs=${2:?-j needs a number}; shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done

options=(-Dtests=enabled -Dconverter=enabled -Db_pch=true -Dgpu_archs="$archs")
suffix='' targets=(all) tests=()
needs=(tests)
case $compiler in
  gcc) export CC='ccache gcc' CXX='ccache g++'; [[ $sanitize == yes || $quick == yes ]] || needs+=(tavern) ;;
  clang) export CC='ccache clang' CXX='ccache clang++'; suffix+=-clang; needs+=(clang); options+=(-Dcuda=disabled) ;;
esac
export CCACHE_SLOPPINESS=pch_defines,time_macros  # else it keeps nothing that uses a precompiled header
if [[ $quick == yes ]]; then
  suffix+=-quick
  options+=(-Dcuda=disabled)
  targets=(tests/unit/unit_tests tests/kernels/kernel_test tests/cuda/cuda_kernel_test tests/cuda/libgptq_cuda_emulated.so)
  tests=(--suite unit --suite kernels --suite source)
fi
if [[ $sanitize == yes ]]; then
  suffix+=-sanitize
  # Of debug information the line numbers: all of it takes as long to write as the code.
  options+=(-Dcuda=disabled -Db_sanitize=address,undefined -Db_lundef=false -Dbuildtype=debug -Doptimization=1 -Dc_args=-g1 -Dcpp_args=-g1)
  targets=(meson-test-prereq)  # no test runs the other programs
  # A finding ends the test.
  export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
  export ASAN_OPTIONS=allocator_may_return_null=1
fi
build=${build:-$root/build/release$suffix}

"$root/examples/install_dependencies.sh" "${needs[@]}"
if [[ -f $build/build.ninja ]]; then
  meson configure "$build" "${options[@]}"
else
  meson setup "$build" "$root" "${options[@]}"
fi
ninja -C "$build" -j "$jobs" "${targets[@]}"

status=0
find "$build" -maxdepth 1 -name '*.xml' -delete
meson test -C "$build" --no-rebuild --print-errorlogs --timeout-multiplier 3 "${tests[@]}" || status=$?
python3 "$root/tests/count_results.py" "$build/meson-logs/testlog.junit.xml" "$status"
exit "$status"
