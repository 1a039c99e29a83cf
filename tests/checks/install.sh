#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# install.sh BUILD: installs into an empty folder and builds examples/hello.c against that with pkg-config, with the shared and with the
# static library.
set -euo pipefail
build=$1
source=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

meson install -C "$build" --no-rebuild --quiet --destdir "$stage"
for file in '*/gptq.h' '*/gptq.hpp' '*/gptq_base.hpp' '*/gptq_model.hpp' '*/libgptq.so' '*/libgptq.a' '*/gptq.pc' \
    '*/bin/gptq-run' '*/bin/gptq-convert' '*/bash-completion/completions/gptq-run' '*/zsh/site-functions/_gptq-tools'; do
  [[ -n $(find "$stage" -path "$file") ]] || { echo "not installed: $file"; exit 1; }
done

pc=$(find "$stage" -name gptq.pc)
export PKG_CONFIG_PATH=${pc%/*}${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
prefix=$(pkg-config --variable=prefix gptq)
flags() { pkg-config --define-variable=prefix="$stage$prefix" "$@" gptq; }
libdir=$(flags --variable=libdir)
read -ra compiler <<<"${CC:-cc}"

hello() {  # NAME FLAG...: a usage line and exit status 2 is all it says without a model
  local name=$stage/$1 status=0
  shift
  "${compiler[@]}" -std=c99 "$source/examples/hello.c" -o "$name" "$@"
  LD_LIBRARY_PATH=$libdir "$name" 2>/dev/null || status=$?
  [[ $status == 2 ]] || { echo "hello ended with $status"; exit 1; }
}

read -ra shared <<<"$(flags --cflags --libs)"
hello hello-shared "${shared[@]}"
[[ $(ldd "$stage/hello-shared") == *libgptq.so* ]] || { echo 'hello-shared does not use libgptq.so'; exit 1; }

offered() {  # WORD... => what bash offers for the last
  COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
  LD_LIBRARY_PATH=$libdir _gptq_tools "$1"
  echo "${COMPREPLY[*]}"
}
# shellcheck source=/dev/null
source "$(find "$stage" -path '*/completions/gptq-convert')"
bin=$(find "$stage" -name bin -type d)
for pair in "$(cd "$stage" && offered "$bin/gptq-convert" q)=quantize" "$(offered "$bin/gptq-convert" quantize --order '')=group-aware natural" \
    "$(offered "$bin/gptq-run" --json-s)=--json-schema"; do
  [[ ${pair%%=*} == "${pair#*=}" ]] || { echo "completion offers ${pair%%=*} instead of ${pair#*=}"; exit 1; }
done

read -ra static <<<"$(flags --cflags --libs --static)"
rm "$libdir"/libgptq.so*
hello hello-static "${static[@]}"
echo 'hello.c builds and runs with the shared and with the static library'
