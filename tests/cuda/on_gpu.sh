#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything of the CUDA backend that only a GPU can show, and a table of it last.
set -uo pipefail

usage() {
  cat <<'END_OF_HELP'
usage: tests/cuda/on_gpu.sh [--backend FILE] [--only PATTERN] BUILD [SHAPE...]

Runs the kernels' tests, those of the C API on a GPU, both under compute-sanitizer (a part of them; if it is on the PATH), gptq-cuda-bench, and
gptq-bench on models that gptq-convert makes: of SHAPE as `gptq-convert synth` knows them (smollm2-135m and llama3-8b). Output goes to
BUILD/on_gpu/, a table to the terminal. Fails if a test does.

It needs
  - a GPU of compute capability 7.5 or more with its driver; the CUDA toolkit only where BUILD is made
  - BUILD, a build folder: meson setup BUILD -Dtests=enabled -Dconverter=enabled -Dcuda=enabled && meson compile -C BUILD
    (it may be copied to the machine with what its programs are linked with: `ldd BUILD/tests/api/api_tests BUILD/tests/bench/gptq-bench`)
  - this folder beside it, for tests/golden
  - 6 GB of disk in BUILD/on_gpu and 8 GB of GPU memory for llama3-8b

  --backend FILE   instead of BUILD/runtime/libgptq_cuda.so; the emulated backend shows that this script works
  --only PATTERN   only the lines of the table that match: 'kernels', '*check*', 'model-*' (a machine may be lent for minutes at a time)
END_OF_HELP
}

backend='' only='*'
while [[ ${1:-} == -* ]]; do
  case $1 in
    --backend) backend=${2:?--backend needs a file}; shift ;;
    --only) only=${2:?--only needs a pattern}; shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done
[[ $# -ge 1 ]] || { usage >&2; exit 2; }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$(cd "$1" && pwd) || exit 2
shift
shapes=("${@:-smollm2-135m}")
[[ $# -gt 0 ]] || shapes+=(llama3-8b)
backend=$(realpath "${backend:-$build/runtime/libgptq_cuda.so}")
[[ -f $backend ]] || { echo "there is no $backend" >&2; exit 2; }

out=$build/on_gpu
mkdir -p "$out"
ln -sf "$backend" "$out/libgptq_cuda.so"  # where the tools find it
export GPTQ_CUDA_BACKEND=$backend GPTQ_EMULATED_CUDA=$backend GPTQ_GOLDEN=$root/tests/golden
export LD_LIBRARY_PATH=$out:$build/runtime${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
status=0
table='| what | result | seconds |'$'\n''|---|---|---|'

# run NAME COMMAND...: a line of the table; output in NAME.txt. Tests: what gtest counted, of which something must have run.
run() {
  local name=$1 begin=$SECONDS code=0 result
  shift
  # shellcheck disable=SC2053
  [[ $name == $only ]] || return 0
  echo "== $name: $*"
  if [[ ! -x $1 ]] && ! command -v "$1" > /dev/null; then
    result='not there' status=1
  else
    timeout 900 "$@" > "$out/$name.txt" 2>&1 || code=$?
    result=$(sed -nE 's/^\[ *(PASSED|SKIPPED|FAILED) *\] ([0-9]+) tests?.*/\2 \1/p' "$out/$name.txt" | tr '\n' ' ')
    if [[ $code -ne 0 || $result == '0 PASSED'* ]]; then
      result="FAILED ($code) $result" status=1
      tail -n 20 "$out/$name.txt"
    fi
  fi
  table+=$'\n'"| $name | ${result:-ok} | $((SECONDS - begin)) |"
}

kernels=$build/tests/cuda/cuda_kernel_test api=$build/tests/api/api_tests
run kernels "$kernels"
run api "$api" '--gtest_filter=Cuda*.*'
if command -v compute-sanitizer > /dev/null; then
  short='--gtest_filter=CudaMatmul.TwoRunsAreEqual:CudaCandidates.RefusesWhatIsNotFinite:CudaMatmul.ProductsTogether:CudaAttention.HidesNoNaN:CudaAppendKv.*:CudaSelectRows.*:CudaEmbed.*'
  for tool in memcheck racecheck synccheck; do
    run "$tool" compute-sanitizer --tool "$tool" --error-exitcode 1 "$kernels" "$short"
  done
  run memcheck-model compute-sanitizer --tool memcheck --error-exitcode 1 "$api" '--gtest_filter=Cuda.ReplayedDecodingGivesWhatPrefillGives'
fi
run products "$build/tests/bench/gptq-cuda-bench" --backend "$backend"
run products-by "$build/tests/bench/gptq-cuda-bench" --backend "$backend" --by own,library --kinds q4,f16 --rows 64,128,256,512,1024,2048
for shape in "${shapes[@]}"; do
  model=$out/$(basename "$shape" .json).gptq
  [[ -s $model ]] || run "model-synth-$(basename "$model" .gptq)" "$build/converter/gptq-convert" synth "$shape" "$model" --head-bits 4
  [[ ! -s $model ]] || run "model-$(basename "$model" .gptq)" "$build/tests/bench/gptq-bench" "$model" --device cuda -d 0,2048 -s 1,4,16
done

for file in "$out"/products*.txt "$out"/model-*.txt; do
  [[ -s $file ]] && printf '\n%s\n' "${file##*/}" && cat "$file"
done
printf '\n%s\n' "$table"
exit $status
