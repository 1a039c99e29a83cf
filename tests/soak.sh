#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The long form of the tests: fuzzing with a corpus that grows, races, faults, random tests with new seeds, and hours of generating.
set -euo pipefail

usage() {
  cat <<'END'
usage: tests/soak.sh HOURS [--dir DIR] [--no-build] [-j N]

Works for HOURS (0.05 is 3 minutes; building comes before), with N things at a time, and prints what was tried and found. What each share of
the time is for:

  50 %  libFuzzer with the address and undefined behaviour sanitizers, on each target of tests/fuzz
  15 %  Soak.MemoryStaysFlat, without a break
  15 %  the tests of sessions, steps, forks, callbacks and adapters under the thread sanitizer, in another order each time
  10 %  Lives/Io: faults and kills, with another seed each time
  10 %  the unit and kernel tests, with another seed each time

  --dir DIR     for corpora, logs and results; otherwise build/soak
  --no-build    use what is in build/soak-fuzz, build/soak-thread and build/soak-plain as it is
  -j N          otherwise as many as there are cores

After Ctrl-C the same call goes on where it was. Corpora stay and are used by the next call. The exit status is 1 if anything was found: inputs
that do it are in DIR/found, the logs of tests in DIR/logs. GPTQ_TEST_DATA names the folder of reference checkpoints, as for tests/run.sh.
END
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
hours='' dir=$root/build/soak jobs=$(nproc) building=yes
while [[ $# -gt 0 ]]; do
  case $1 in
    --dir) dir=${2:?--dir needs a folder}; shift ;;
    --no-build) building=no ;;
    -j) jobs=${2:?-j needs a number}; shift ;;
    -h | --help) usage; exit 0 ;;
    *) [[ $1 =~ ^[0-9]*\.?[0-9]+$ && -z $hours ]] || { usage >&2; exit 2; }; hours=$1 ;;
  esac
  shift
done
[[ -n $hours ]] || { usage >&2; exit 2; }
mkdir -p "$dir"/{corpus,found,logs}
dir=$(cd "$dir" && pwd)
export GPTQ_GOLDEN=$root/tests/golden

targets=(adapter calls chat_template checkpoint constraint container gguf save tokenizer)
threaded='Adapted.*:Checkpoints/AdapterFamilies.*:Cases*:Checkpoints/Fork.*:Forked.*:SharedPrefix.*:Reentry.*:Saved.*:Session.*:Step.*:Stream.*:Cases/Stream.*:Ways/Determinism.*:Score.*:Tagged.*'

# ---- Building

programs=()
for target in "${targets[@]}"; do programs+=("tests/fuzz/${target}_fuzz"); done

build() {  # FOLDER COMPILER OPTIONS -- TARGETS
  local folder=$root/build/soak-$1 cc=gcc cxx=g++ options=()
  [[ $building == yes ]] || return 0
  [[ $2 == gcc ]] || cc=clang cxx=clang++
  shift 2
  while [[ $1 != -- ]]; do options+=("$1"); shift; done
  shift
  if [[ ! -f $folder/build.ninja ]]; then
    CC="ccache $cc" CXX="ccache $cxx" meson setup "$folder" "$root" -Dtests=enabled -Dconverter=enabled -Dcuda=disabled -Dhub=disabled "${options[@]}" >"$dir/logs/setup.log" ||
      { cat "$dir/logs/setup.log" >&2; exit 2; }
  fi
  ninja -C "$folder" -j "$jobs" "$@"
}

[[ $building == no ]] || "$root/examples/install_dependencies.sh" tests clang
export CCACHE_SLOPPINESS=pch_defines,time_macros
build fuzz clang -Dbuildtype=debug -Doptimization=1 -Db_sanitize=address,undefined -Db_lundef=false -Dc_args=-g1 -Dcpp_args='-g1 -fsanitize=fuzzer-no-link' \
  -- "${programs[@]}"
build thread clang -Db_sanitize=thread -Db_lundef=false -Dbuildtype=debug -Doptimization=1 -Dc_args=-g1 -Dcpp_args=-g1 -- tests/api/api_tests
build plain gcc -Db_pch=true -- tests/api/api_tests tests/unit/unit_tests tests/kernels/kernel_test

# ---- What has been done: lines of SERIES JOB SECONDS TRIED FOUND TEXT. A series is one call, with those that went on after it was stopped.

record=$dir/record.tsv
touch "$record"
commit=$(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo unknown)
series=$(tail -n 1 "$dir/series" 2>/dev/null || true)
if [[ $series != *" $hours $commit" ]]; then  # else it was stopped; the last line is 'done' if it was not
  series="$(date +%Y-%m-%dT%H:%M:%S) $hours $commit"
  echo "$series" >>"$dir/series"
fi
sum() { awk -F'\t' -v s="$series" -v j="$1" -v f="$2" '(s == "" || $1 == s) && (j == "" || index($2, j) == 1) { n += $f } END { printf "%.0f", n }' "$record"; }

declare -A share=() running=()
all=$(awk -v h="$hours" -v j="$jobs" 'BEGIN { printf "%.0f", h * 3600 * j }')
for target in "${targets[@]}"; do share[fuzz $target]=$((all * 50 / 100 / ${#targets[@]} + 1)); done
share[soak]=$((all * 15 / 100 + 1)) share[threads]=$((all * 15 / 100 + 1)) share[faults]=$((all * 10 / 100 + 1)) share[random]=$((all * 10 / 100 + 1))
# What does not go on is at most as long as all of it.
[[ ${share[soak]} -lt $((all / jobs)) ]] || share[soak]=$((all / jobs))

# ---- The jobs: each works for SECONDS or less, and adds a line

seed_corpus() {  # as tests/fuzz/replay_test.cpp has it
  local name=$1 to=$2 folder size
  cp -n "$root/tests/fuzz/corpus/$name/"* "$to" 2>/dev/null || true
  case $name in
    container) cp -n "$GPTQ_GOLDEN"/*.gptq "$to" ;;
    save) cp -n "$GPTQ_GOLDEN"/*.save "$to" ;;
    checkpoint)
      for folder in checkpoints/random-mistral-window-w4-g64 families/{mixtral-w4-g32,opt-350m-like-w4-g64,gpt-oss-w4-g32}; do
        size=$(stat -c %s "$GPTQ_GOLDEN/$folder/config.json")
        { printf '%b' "\\x$(printf %02x $((size % 256)))\\x$(printf %02x $((size / 256)))"; cat "$GPTQ_GOLDEN/$folder/"{config.json,model.safetensors}; } >"$to/${folder##*/}"
      done ;;
  esac
}

note() {  # JOB BEGIN TRIED FOUND TEXT
  local spent=$(($(date +%s) - $2))
  [[ $4 == 0 || $spent -ge 60 ]] || spent=60  # what fails at once does not fill the log
  printf '%s\t%s\t%d\t%d\t%d\t%s\n' "$series" "$1" "$spent" "$3" "$4" "$5" >>"$record"
}

fuzz() {  # TARGET SECONDS
  local name=$1 corpus=$dir/corpus/$1 log=$dir/logs/fuzz-$1.log begin tried found=0 before
  begin=$(date +%s)
  mkdir -p "$corpus"
  seed_corpus "$name" "$corpus"
  before=$(find "$dir/found" -name "$name-*" | wc -l)
  UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 ASAN_OPTIONS=allocator_may_return_null=1 \
    "$root/build/soak-fuzz/tests/fuzz/${name}_fuzz" "$corpus" -max_total_time="$2" -timeout=10 -rss_limit_mb=2048 -max_len=1048576 -len_control=0 -print_final_stats=1 \
    -artifact_prefix="$dir/found/$name-" >"$log" 2>&1 || true
  tried=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  found=$(($(find "$dir/found" -name "$name-*" | wc -l) - before))
  if [[ -z $tried ]]; then  # it ended in some other way
    tried=$(sed -n 's/^#\([0-9]*\)\t.*/\1/p' "$log" | tail -n 1)
    [[ $stopped == yes || $found -gt 0 ]] || found=1
  fi
  [[ $found == 0 ]] || cp "$log" "$dir/found/log-$name-$begin"
  note "fuzz $name" "$begin" "${tried:-0}" "$found" "$(find "$corpus" -type f | wc -l) inputs in the corpus"
}

tests() {  # JOB SECONDS BUILD PROGRAM FILTER
  local job=$1 build=$root/build/soak-$3 log=$dir/logs/$1.log begin seed tried found status=0 most=$2
  [[ $job != soak ]] || most=$(($2 + 120))  # it ends by itself
  begin=$(date +%s) seed=$((begin % 99999 + 1))
  GPTQ_TEST_SEED=$seed GPTQ_SOAK_SECONDS=$2 TSAN_OPTIONS=halt_on_error=0:exitcode=66 GPTQ_LIBRARY=$build/runtime/libgptq.so.0 \
    GPTQ_EMULATED_CUDA=$build/tests/cuda/libgptq_cuda_emulated.so \
    timeout --foreground --kill-after=5 "$most" "$build/tests/$4" --gtest_filter="$5" --gtest_shuffle --gtest_random_seed="$seed" >"$log" 2>&1 || status=$?
  tried=$(grep -c '^\[       OK \]' "$log" || true)
  # What the time ended was not found wrong.
  found=$(grep -cE '^\[  FAILED  \] .* \(|WARNING: ThreadSanitizer|^==.*ERROR' "$log" || true)
  [[ $found -gt 0 || $status == 0 || $status == 124 || $stopped == yes ]] || found=1
  # Nothing said for so long is a test that hangs.
  [[ $status != 124 || ($job != soak && $(($(date +%s) - $(stat -c %Y "$log"))) -lt 600) ]] || found=1
  [[ $found == 0 ]] || cp "$log" "$dir/found/log-$job-$begin"
  [[ $job != soak || $stopped == no ]] || begin=$(date +%s)  # it begins anew
  note "$job" "$begin" "$tried" "$found" "$(sed -n 's/^\([0-9]* generations: .*\)/\1/p' "$log")"
}

work() {  # JOB SECONDS
  local stopped=no
  trap 'stopped=yes' INT TERM
  case $1 in
    fuzz\ *) fuzz "${1#fuzz }" "$2" ;;
    soak) tests soak "$2" plain api/api_tests Soak.MemoryStaysFlat ;;
    threads) tests threads "$2" thread api/api_tests "$threaded" ;;
    faults) tests faults "$2" plain api/api_tests 'Lives/Io.*' ;;
    random)
      if ((RANDOM % 3)); then tests random "$2" plain unit/unit_tests '*'; else tests random "$2" plain kernels/kernel_test '*'; fi ;;
  esac
}

# ---- One round after the other, of what is furthest behind

table() {
  local job text
  printf '\n%s, %s hours, %s; in brackets: in all the calls that this folder has seen\n\n' "$commit" "$hours" "$(date +%F)"
  printf '| what | tried | seconds | found |\n|---|---|---|---|\n'
  for job in "${targets[@]/#/fuzz }" 'fuzz ' soak threads faults random; do
    case $job in
      'fuzz ') text='inputs of all targets' ;;
      fuzz*) text="${job#fuzz }: inputs" ;;
      soak) text='soak' ;;
      threads) text='tests under the thread sanitizer' ;;
      faults) text='tests of faults and kills' ;;
      random) text='unit and kernel tests, other seeds' ;;
    esac
    printf '| %s | %s (%s) | %s | %s (%s) |\n' "$text" "$(sum "$job" 4)" "$(series='' sum "$job" 4)" "$(sum "$job" 3)" "$(sum "$job" 5)" "$(series='' sum "$job" 5)"
  done
  printf '\nsoak: %s\n' "$(awk -F'\t' -v s="$series" '$1 == s && $2 == "soak" { t = $6 } END { print t == "" ? "not finished" : t }' "$record")"
}

stop=no
stop_all() {
  local pid
  stop=yes
  for pid in "${!running[@]}"; do
    kill -TERM "$pid" 2>/dev/null || true
    pkill -TERM -P "$pid" || true
  done
}
trap stop_all INT TERM
echo "Working until about $(date -d "+$((all / jobs)) seconds" +%H:%M); logs are in $dir/logs"
while :; do
  for pid in "${!running[@]}"; do
    kill -0 "$pid" 2>/dev/null || unset "running[$pid]"
  done
  if [[ $stop == no && ${#running[@]} -lt $jobs ]]; then
    next='' behind=0
    for job in "${!share[@]}"; do
      [[ " ${running[*]/%/,} " != *"$job,"* ]] || continue
      left=$((share[$job] - $(sum "$job" 3)))
      part=$((1000 * left / share[$job]))
      [[ $left -ge 2 && ($part -gt $behind || $job == soak) ]] || continue
      next=$job behind=$part seconds=$left
      [[ $job != soak ]] || break
    done
    if [[ -n $next ]]; then
      [[ $next == soak || $seconds -le 900 ]] || seconds=$(((seconds + seconds / 900) / (1 + seconds / 900)))
      work "$next" "$seconds" &
      running[$!]=$next
      continue
    fi
  fi
  [[ ${#running[@]} -gt 0 ]] || break
  wait -n || true
done

table
if [[ $stop == yes ]]; then
  echo "Stopped; the same call goes on."
else
  echo 'done' >>"$dir/series"
fi
[[ $(sum '' 5) == 0 ]] || { echo "What was found is in $dir/found" >&2; exit 1; }
[[ $stop == no ]] || exit 130
