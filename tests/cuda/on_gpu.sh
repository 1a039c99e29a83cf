#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What only a GPU can show of the CUDA backend, in parts of a few minutes each: a GPU may be lent for no longer.
set -uo pipefail

usage() {
  cat <<'END_OF_HELP'
usage: tests/cuda/on_gpu.sh folder BUILD     what travels to the machine with the GPU: 30 MB in .gpu of the current folder
       tests/cuda/on_gpu.sh PART [SECONDS]   there, in the same folder; SECONDS: no step begins after them (225)

  a   is it right: the kernels' tests, a chain of layers without waiting, the C API's tests, the same text twice, memcheck, racecheck; a glance at the speed
  b   where the time goes: products beside PyTorch's, a model of Llama-3-8B's shape, Nsight Compute
  c   thresholds: our own kernels beside cuBLASLt, long contexts

The order is a, read, mend, b, c. Output goes to $OUT (/tmp/out) as it is made, with a table last; what it printed goes whole into tests/bench/gpu/.
Fails if a test of part a does.

BUILD: meson setup BUILD -Dtests=enabled -Dconverter=enabled -Dcuda=enabled -Dhub=disabled && meson compile -C BUILD
The machine needs a GPU of compute capability 7.5 with its driver, 4 GB of disk and of GPU memory (8 GB of each in b and c); what else it has is used: compute-sanitizer,
ncu, cuBLASLt, and python3 with PyTorch.
GPTQ_CUDA_BACKEND=FILE instead of the folder's backend; the emulated one shows that part a works.
END_OF_HELP
}

make_folder() {
  local build f
  build=$(realpath "${1:?folder needs a build folder}") || exit 2
  grep -qx /.gpu/ "$(git rev-parse --git-path info/exclude)" 2> /dev/null || echo /.gpu/ >> "$(git rev-parse --git-path info/exclude)"
  rm -rf .gpu && mkdir -p .gpu/{runtime,converter,examples,tests/{cuda,api,bench}} || exit 1
  cp "$build"/runtime/{libgptq_cuda.so,libgptq.so.0} .gpu/runtime/ && cp "$build/converter/gptq-convert" .gpu/converter/ &&
    cp "$build/examples/gptq-run" .gpu/examples/ && cp "$build/tests/cuda/cuda_kernel_test" .gpu/tests/cuda/ && cp "$build/tests/api/api_tests" .gpu/tests/api/ &&
    cp "$build"/tests/bench/gptq-{bench,cuda-bench,eval} .gpu/tests/bench/ || exit 1
  for f in .gpu/*/gptq-* .gpu/tests/*/*; do strip "$f"; done
  for f in .gpu/*/gptq-* .gpu/tests/*/*; do  # what a bare image lacks
    ldd "$f" | awk '/libsimdjson|libpcre2/ {print $3}' | xargs -r -I{} cp -Lu {} .gpu/runtime/
  done
  du -sh .gpu
}

case ${1:-} in
  folder) make_folder "${2:-}"; exit ;;
  a | b | c) ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac

part=$1 gpu=$PWD/.gpu end=$((SECONDS + ${2:-225})) status=0 table=''
export OUT=${OUT:-/tmp/out} part
[[ -d $gpu ]] || { echo "there is no folder .gpu here: tests/cuda/on_gpu.sh folder BUILD makes it" >&2; exit 2; }
mkdir -p "$OUT"
backend=${GPTQ_CUDA_BACKEND:-$gpu/runtime/libgptq_cuda.so}
cublaslt=$(find /usr/local /opt -xdev -name 'libcublasLt.so.1[23]' -print -quit 2> /dev/null)
export PATH=$PATH:/usr/local/cuda/bin GPTQ_CUDA_BACKEND=$backend GPTQ_EMULATED_CUDA=$backend GPTQ_GOLDEN=$PWD/tests/golden
export LD_LIBRARY_PATH=$gpu/runtime${cublaslt:+:$(dirname "$cublaslt")}

# step NAME LIMIT COMMAND...: a line of the table; the output goes to the part's file.
step() {
  local name=$1 limit=$2 begin=$SECONDS code=0
  shift 2
  ((limit > end - SECONDS)) && limit=$((end - SECONDS))
  if ((limit < 5)); then
    table+="$name: no time left"$'\n'
    return
  fi
  printf '\n== %s\n' "$name" >> "$OUT/$part.txt"
  timeout -k 5 "$limit" "$@" >> "$OUT/$part.txt" 2>&1 || code=$? status=1
  table+="$name: $( ((code)) && echo "FAILED $code" || echo ok), $((SECONDS - begin)) s"$'\n'
}
# A test program: what matters of its output to the part's file, all of it beside that.
tests() {
  local code=0 all=$OUT/$part.full.txt before
  touch "$all"
  before=$(wc -l < "$all")
  "$@" >> "$all" 2>&1 || code=$?
  tail -n +$((before + 1)) "$all" | grep -E 'FAILED|PASSED|SKIPPED|Failure|expected|ctual|rror:|ERROR SUMMARY|product |position |differ|other bits' | head -60
  return $code
}
export -f tests
synth() { [[ -s $2 ]] || "$gpu/converter/gptq-convert" synth "$1" "$2" --head-bits 4 > /dev/null 2>&1; }

kernels=$gpu/tests/cuda/cuda_kernel_test api=$gpu/tests/api/api_tests
products=("$gpu/tests/bench/gptq-cuda-bench" --backend "$backend")
bench=("$gpu/tests/bench/gptq-bench" --device cuda --backend "$backend")
generate="$gpu/examples/gptq-run --device cuda --backend $backend --ids 5,6,7,8,9,10 -n 200 --print-ids --ignore-eos --temp 1 --top-k 40 --seed 3"
{
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem --format=csv
  nvcc --version | tail -1
  command -v compute-sanitizer ncu
  echo "cuBLASLt: $cublaslt"
  ldd "$api" "$kernels" | grep 'not found'
  grep -m1 'model name' /proc/cpuinfo
} > "$OUT/$part.txt" 2>&1

case $part in
  a)
    synth smollm2-135m /tmp/135m.gptq &
    step kernels 60 bash -c "tests $kernels --gtest_filter=-CudaChain.*"
    step chain 40 bash -c "tests $kernels --gtest_filter=CudaChain.*"
    step api 60 bash -c "tests $api '--gtest_filter=Cuda*.*'"
    step products 25 "${products[@]}" -m 1,8,16 --shapes 4096x4096,4096x14336 -r 5
    wait
    step same-twice 25 bash -c "$generate /tmp/135m.gptq > /tmp/once && $generate /tmp/135m.gptq > /tmp/twice && cmp /tmp/once /tmp/twice"
    step model-135m 15 "${bench[@]}" /tmp/135m.gptq -p 512 -n 128 -s 1,8,16 -r 3
    if command -v compute-sanitizer > /dev/null; then
      some=CudaMatmul.TwoRunsAreEqual:CudaAttention.HidesNoNaN:CudaCandidates.RefusesWhatIsNotFinite
      more=$some:CudaMatmul.ProductsTogether:CudaAppendKv.*:CudaSelectRows.*:CudaEmbed.*
      step memcheck 50 bash -c "tests compute-sanitizer --tool memcheck --error-exitcode 1 $kernels '--gtest_filter=$more'"
      step racecheck 50 bash -c "tests compute-sanitizer --tool racecheck --error-exitcode 1 $kernels '--gtest_filter=$some'"
      step memcheck-model 50 bash -c "tests compute-sanitizer --tool memcheck --error-exitcode 1 $api --gtest_filter=Cuda.ReplayedDecodingGivesWhatPrefillGives"
    fi
    ;;
  b)
    synth llama3-8b /tmp/8b.gptq & maker=$!
    step products 30 "${products[@]}" -m 1,2,4,8,16,32,64 --shapes 4096x4096,28672x4096,4096x14336
    step products-norm 15 "${products[@]}" -m 1,8,16 --shapes 28672x4096 --input norm
    step products-silu 15 "${products[@]}" -m 1,8,16 --shapes 4096x14336 --input silu
    step products-g64 15 "${products[@]}" -m 1,8 --shapes 4096x4096,28672x4096 --group-size 64
    step products-q238 15 "${products[@]}" -m 1 --kinds q2,q3,q8,f16 --shapes 28672x4096
    step torch 40 python3 tests/bench/torch_products.py --rows 1,4,16,64 --shapes 4096x4096,28672x4096,4096x14336
    step wait-for-8b 60 tail --pid=$maker -f /dev/null
    step model-8b 60 "${bench[@]}" /tmp/8b.gptq -p 512,2048 -n 128 -d 0,2048 -s 1,8,16 -r 2
    if command -v ncu > /dev/null; then
      metrics=gpu__time_duration.sum,dram__throughput.avg.pct_of_peak_sustained_elapsed,sm__cycles_active.avg
      step ncu-model 60 bash -c "ncu --clock-control none --csv --metrics $metrics --launch-skip 240 --launch-count 40 ${bench[*]} /tmp/8b.gptq -p 0 -n 4 -r 1 > $OUT/ncu_model.csv"
      step ncu-decode 45 bash -c "ncu --clock-control none --set full -k regex:decode_kernel --launch-skip 20 --launch-count 2 ${products[*]} -m 1 --shapes 4096x14336 --input silu -r 1 > $OUT/ncu_decode.txt"
    fi
    ;;
  c)
    synth llama3-8b /tmp/8b.gptq & maker=$!
    step by-q4 45 "${products[@]}" --by own,library --kinds q4 --shapes 28672x4096 -m 128,256,512,1024,2048 -r 5
    step by-f16 40 "${products[@]}" --by own,library --kinds f16 --shapes 4096x4096 -m 64,128,256,1024 -r 5
    step wait-for-8b 60 tail --pid=$maker -f /dev/null
    step long-context 60 "${bench[@]}" /tmp/8b.gptq -p 0 -n 64 -d 64,12000 -s 1 -r 1
    step short-context 20 "${bench[@]}" /tmp/8b.gptq -p 0 -n 64 -d 64 -s 1 -r 2
    ;;
esac
tail -c 8000 "$OUT/$part.txt"
printf '\n%s' "$table" | tee "$OUT/$part.table.txt"
exit $status
