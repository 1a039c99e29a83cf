# SPDX-License-Identifier: Apache-2.0
# For windows.sh: the programs as a user has them, under Wine.
# shellcheck shell=bash disable=SC2154,SC2016

# The names of files reach Windows programs through the locale.
export LC_ALL=C.UTF-8
golden=$root/tests/golden/checkpoints/random-qwen3-w4-g128
model=$work/model.gptq

check 'gptq-convert converts a checkpoint' convert "$golden" "$model"
check 'gptq-convert verify' convert verify "$model"
check 'gptq-convert inspect' convert inspect "$model"
if [[ -n $native ]]; then
  "$native" "$golden" "$work/native.gptq" >/dev/null
  check 'the file is byte for byte the one of this machine' same_bytes "$model" "$work/native.gptq"
  check 'a zstd file is byte for byte the one of this machine' bash -c '
    "$1" --compress zstd "$2" "$3/z1.gptq" && wine "$4" --compress zstd "$2" "$3/z2.gptq" &&
    cmp "$3/z1.gptq" "$3/z2.gptq"' \
    sh "$native" "$golden" "$work" "$build/converter/gptq-convert.exe"
else
  skip 'files as this machine writes them' '--native names no gptq-convert'
fi
for checkpoint in "$root"/tests/golden/checkpoints/*; do
  convert "$checkpoint" "$work/checkpoint.gptq" --force >/dev/null 2>&1 || true
  check "greedy ids of $(basename "$checkpoint")" python3 "$root/tests/cross/greedy.py" "$checkpoint" \
    wine "$build/examples/gptq-run.exe" "$work/checkpoint.gptq"
done
check 'a file that exists is kept' fails_with 'exists already' convert "$golden" "$model"
check 'a missing file is named' fails_with 'No such file' generate "$work/none.gptq" -p x
check 'a wrong option ends with 2' bash -c 'wine "$1" --nonsense; [[ $? == 2 ]]' sh "$build/converter/gptq-convert.exe"
check 'the hub says that it is not there' fails_with 'built without libcurl' convert owner/name "$work/hub.gptq"

# Unicode and long names.
deep=$work/deep
for part in a b c; do deep+=/ä漢😀-$(printf "%0100d" 0)$part; done
mkdir -p "$deep" "$work/Модель ü 漢"
check 'names in Unicode' convert "$golden" "$work/Модель ü 漢/модель 😀.gptq"
check 'a model in Unicode runs' generate "$work/Модель ü 漢/модель 😀.gptq" --ids 1,2,3 -n 4
check 'paths of more than 260 characters' convert "$golden" "$deep/model.gptq"
check 'a model at a long path runs' generate "$deep/model.gptq" --ids 1,2,3 -n 4
check 'a checkpoint is exported to a long path' convert export "$deep/model.gptq" "$deep/exported"
check 'and converted again from there' convert "$deep/exported" "$deep/again.gptq"
check 'saves at a long path' generate "$deep/model.gptq" --ids 1,2,3 -n 4 --save "$deep/ü.save"
check 'and goes on from there' generate "$deep/model.gptq" --restore "$deep/ü.save" -n 4
check 'a folder is replaced' convert export "$deep/model.gptq" "$deep/exported" --force

# Text: a model with a tokenizer.
data=${GPTQ_TEST_DATA:-}
if [[ -d $data/checkpoints/stories-w4-g64 ]]; then
  convert "$data/checkpoints/stories-w4-g64" "$work/stories.gptq" >/dev/null 2>&1 || true
  check 'hello.exe tells a story' bash -c '[[ $(wine "$1" "$2" "Once upon a time") == *" "* ]]' \
    sh "$build/examples/hello.exe" "$work/stories.gptq"
  cp -r "$data/checkpoints/stories-w4-g64" "$work/Модель ü 漢/folder"
  check 'a checkpoint with a tokenizer in a folder in Unicode' convert "$work/Модель ü 漢/folder" "$work/folder.gptq"
  check 'and its text' generate "$work/folder.gptq" -p 'Once upon a time, Zoë' -n 4
  check 'gptq-run continues a text' generate "$work/stories.gptq" -p 'Once upon a time, Zoë' -n 16
  check 'constraints' bash -c '[[ $(wine "$1" "$2" -p x --choice "Zoë" | tr -d "\r\n") == *Zoë* ]]' \
    sh "$build/examples/gptq-run.exe" "$work/stories.gptq"
  if [[ -n $native && -x $(dirname "$native")/../examples/gptq-run ]]; then
    check 'the same text as on this machine in exact mode' bash -c '
      "$1" "$3" -p "Once upon a time" -n 40 --exact >"$4/native.txt" &&
      wine "$2" "$3" -p "Once upon a time" -n 40 --exact >"$4/windows.txt" && [[ -s $4/native.txt ]] &&
      diff "$4/native.txt" "$4/windows.txt"' \
      sh "$(dirname "$native")/../examples/gptq-run" "$build/examples/gptq-run.exe" "$work/stories.gptq" "$work"
  else
    skip 'the same text as on this machine' '--native names no gptq-convert with a gptq-run'
  fi
else
  skip 'hello.exe and text' 'GPTQ_TEST_DATA is not set: the models in this repository have no tokenizer'
fi

# Quantizing: a 16-bit model of random weights, calibrated with tokens that are counted off.
python3 - "$work" "$golden" <<'END'
import json, sys
with open(sys.argv[2] + "/config.json", encoding="utf-8") as file:
  config = json.load(file)
del config["quantization_config"]
config.update(hidden_size=512, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=8)
with open(sys.argv[1] + "/config.json", "w", encoding="utf-8") as file:
  json.dump(config, file)
with open(sys.argv[1] + "/tokens.ids", "w", encoding="utf-8") as file:
  file.write(" ".join(str((i * i + 7 * i) % 500 + 3) for i in range(32 * 128)))
END
dense=$work/dense.gptq
check 'gptq-convert synth' convert synth "$work/config.json" "$dense" --bits 16 --head-bits 16
job=(quantize "$dense" "$work/q.gptq" --calibration "$work/tokens.ids" --rows 32 --row-tokens 128 --group-size 64)
whole=(quantize "$dense" "$work/whole.gptq" "${job[@]:3}")
check 'gptq-convert quantize' convert "${whole[@]}"
check 'its file is sound' convert verify "$work/whole.gptq"

# until SECONDS COMMAND...: waits until it succeeds.
until_true() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < end)) || return 1
    sleep 0.05
  done
}
killed_in_the_middle() {
  convert "${job[@]}" >"$work/killed" 2>&1 &
  local shell=$!
  until_true 120 test -f "$work/q.gptq.work/1.gptq" || return 1
  fails_with 'another process is writing' convert "${job[@]}" || return 1
  wine taskkill /f /im gptq-convert.exe
  wait "$shell" || true
  [[ ! -f $work/q.gptq && -f $work/q.gptq.work/0.gptq ]]
}
check 'a job is killed, and a second one was refused' killed_in_the_middle
cp "$work/q.gptq.work/0.gptq" "$work/first" 2>/dev/null || true
check 'the same command goes on' convert "${job[@]}"
check 'with the same result' same_bytes "$work/q.gptq" "$work/whole.gptq"
check 'and leaves nothing behind' bash -c '! ls -d "$1"/q.gptq?* "$1"/.part-* 2>/dev/null' sh "$work"
if [[ -n $native ]]; then
  "$native" quantize "$dense" "$work/native-q.gptq" "${job[@]:3}" >/dev/null 2>&1 || true
  check 'a quantized file is byte for byte the one of this machine' same_bytes "$work/whole.gptq" "$work/native-q.gptq"
fi

# Disks that are full or may not be written.
mkdir -p "$work/small" "$work/fixed"
if mount -t tmpfs -o size=256k tmpfs "$work/small" 2>/dev/null; then
  check 'a full disk is told' fails_with 'No space left' convert "$golden" "$work/small/model.gptq"
  check 'and nothing of the file stays' bash -c '! ls "$1"/* 2>/dev/null' sh "$work/small"
  check 'quantizing asks for the room first' fails_with 'the disk has' \
    convert "${job[@]/#$work\/q.gptq/$work\/small\/q.gptq}"
else
  skip 'full disks' 'there is no right to mount one'
fi
if mount -t tmpfs -o ro tmpfs "$work/fixed" 2>/dev/null; then
  check 'a disk that is only read is told' fails_with 'cannot create' convert "$golden" "$work/fixed/model.gptq"
  check 'quantizing sees it before it begins' fails_with 'cannot write into' \
    convert "${job[@]/#$work\/q.gptq/$work\/fixed\/q.gptq}"
else
  skip 'disks that are only read' 'there is no right to mount one'
fi

skip 'tests of the host and of quantizing in processes of their own' 'they need fork(), limits and /proc'
skip 'models on GPUs' "the backend's emulator needs POSIX"
skip 'Ctrl-C' 'a program under Wine without a console gets none'
skip 'loading from the hub' 'the Windows build has no libcurl'
skip 'gptq_cuda.dll' 'nvcc needs MSVC on Windows'
