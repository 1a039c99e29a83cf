#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# amalgamation.sh SOURCE_ROOT BUILD_ROOT GPTQ-CONVERT: examples/hello.c with the library as a few files writes what it writes with the build's library.
set -euo pipefail
source=$1 build=$2 convert=$3
game=$(mktemp -d)
trap 'rm -rf "$game"' EXIT
read -ra cc <<<"${CC:-cc}"
read -ra cxx <<<"${CXX:-c++}"

python3 "$source/bindings/fixture.py" "$game/checkpoint"
"$convert" "$game/checkpoint" "$game/model.gptq" >/dev/null
python3 "$source/packaging/amalgamate.py" "$game"
mkdir "$game/gptq"
ln -s ../gptq.h "$game/gptq/gptq.h"
cd "$game"
"${cc[@]}" -std=c99 -I. -c "$source/examples/hello.c"
# Numbers do not depend on the optimization, and most of the time goes into it.
for file in gptq*.cpp; do "${cxx[@]}" -std=c++20 -O0 -Wall -Wextra -Werror -Wno-psabi -c "$file"; done
"${cxx[@]}" ./*.o -lzstd -pthread -o hello-added
"${cc[@]}" hello.o "-L$build/runtime" -lgptq -o hello-linked

# The last line tells the time.
story() { for prompt in 'Once upon a time' the a; do "$@" model.gptq "$prompt" | sed '$d'; done; }
added=$(story ./hello-added) linked=$(LD_LIBRARY_PATH=$build/runtime story ./hello-linked)
[[ ${#linked} -gt 20 && $added == "$linked" ]] || { echo "the library as files wrote '$added' instead of '$linked'"; exit 1; }
wc -l gptq*.{h,cpp}
