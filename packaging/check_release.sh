#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Checks an archive that packaging/release.sh made. The last line is 'N passed, N failed, N skipped'.
set -euo pipefail

usage() {
  cat <<'END_OF_USAGE'
usage: packaging/check_release.sh [--root FOLDER] ARCHIVE

  --root FOLDER   run what is for Linux in this root of another system (as debootstrap makes it), with chroot

Everything: what is in the archive, what the library exports and needs, that no folder of the machine that built it is
inside. For Linux: that the tools run, natively or under QEMU, with the kernels that the processor can run, give the
reference's tokens, and that hello.c builds with pkg-config. For Windows the same under Wine. What is for macOS is only
looked at. It takes binutils, and for macOS llvm, for AArch64 qemu-user and libc6-arm64-cross, for Windows MinGW-w64 and
Wine; without them that part is skipped.
END_OF_USAGE
}

other_root=''
while [[ $# -gt 0 ]]; do
  case $1 in
    --root) other_root=$(realpath "${2:?--root needs a folder}"); shift ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) break ;;
  esac
  shift
done
[[ $# -eq 1 ]] || { usage >&2; exit 2; }
archive=$(realpath "$1")
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export LC_ALL=C

work=$(mktemp -d ${other_root:+-p "$other_root/tmp"})
trap 'rm -rf "$work"' EXIT
case $archive in
  *.zip) python3 -m zipfile -e "$archive" "$work" ;;
  *) tar -C "$work" -xzf "$archive" ;;
esac
folder=$(echo "$work"/libgptq-*)
name=${folder##*/libgptq-} version=${folder##*/libgptq-}
version=${version%%-*} target=${name#*-}
system=${target%%-*} cpu=${target##*-}

# shellcheck source=tests/cross/counted.sh
. "$root/tests/cross/counted.sh"

# What is in it.
exe=''
case $system in
  linux) library=lib/libgptq.so.$version links=(lib/libgptq.so lib/libgptq.so.0) ;;
  macos) library=lib/libgptq.0.dylib links=(lib/libgptq.dylib) ;;
  windows) library=bin/gptq-0.dll links=(lib/libgptq.dll.a lib/gptq-0.def) exe=.exe ;;
  *) echo "$archive is none of a release" >&2; exit 2 ;;
esac
tools=()
for tool in run convert bench eval; do tools+=("bin/gptq-$tool$exe"); done

has_its_files() {
  local file
  for file in "$library" "${links[@]}" "${tools[@]}" include/gptq/gptq.h include/gptq/gptq.hpp include/gptq/gptq_base.hpp include/gptq/gptq_model.hpp lib/pkgconfig/gptq.pc \
    lib/cmake/gptq/gptq-config.cmake lib/cmake/gptq/gptq-config-version.cmake LICENSE README.txt licences/zstd.txt; do
    [[ -s $folder/$file ]] || { echo "missing: $file"; return 1; }
  done
}
names_no_folder() {
  ! grep -rlaE "$root|site-packages|release-work|/tmp/|/usr/(lib/gcc|include|share)|/build/" "$folder/bin" "$folder/lib"
}
same_as_sum() {
  (cd "$(dirname "$archive")" && grep -F "  $(basename "$archive")" SHA256SUMS | sha256sum --check --strict)
}
check 'it has its files' has_its_files
check 'no folder of the machine that built it is inside' names_no_folder
check 'SHA256SUMS has its sum' same_as_sum

interface() { grep -o 'GPTQ_CALL gptq_[a-z0-9_]*(' "$folder/include/gptq/gptq.h" | sed 's/.* //; s/(//' | sort -u; }

# only_needs LIST NAME...: whether the libraries of LIST are among NAME.
only_needs() {
  local list=$1 needed
  shift
  [[ -n $list ]] || return 1
  for needed in $list; do
    [[ " $* " == *" $needed "* ]] || { echo "it needs $needed"; return 1; }
  done
}

elf_exports() { diff <(interface) <(readelf -W --dyn-syms "$folder/$library" | awk '$5 == "GLOBAL" && $7 != "UND" && $7 != "ABS" { sub(/@.*/, "", $8); print $8 }' | sort); }
elf_name() { readelf -d "$folder/$library" | grep -F 'Library soname: [libgptq.so.0]'; }
elf_needs() {
  only_needs "$(readelf -d "$folder/$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')" libc.so.6 libm.so.6 libpthread.so.0 libdl.so.2 \
    librt.so.1 ld-linux-x86-64.so.2 ld-linux-aarch64.so.1 libgptq.so.0
}
elf_glibc() {
  local most
  most=$(readelf -W --version-info "$folder/$1" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -Vu | tail -n 1)
  echo "$1 asks for glibc $most"
  [[ -n $most && $(printf '%s\n2.17\n' "$most" | sort -V | tail -n 1) == 2.17 ]]
}
elf_stack() { readelf -lW "$folder/$1" | grep 'GNU_STACK.* RW '; }

# zig's linker also exports the two names that every Mach-O library has of its own header.
macho_only() { diff <(interface | sed 's/^/_/') <(grep -vx -e ___dso_handle -e __mh_dylib_header | sort); }
macho_exports() { llvm-nm --defined-only --extern-only --just-symbol-name "$folder/$library" | macho_only; }
macho_trie() { llvm-objdump --macho --exports-trie "$folder/$library" | awk '/^0x/ { print $2 }' | macho_only; }
macho_name() { llvm-objdump --macho --dylib-id "$folder/$library" | grep -Fx '@rpath/libgptq.0.dylib'; }
macho_needs() { only_needs "$(llvm-objdump --macho --dylibs-used "$folder/$1" | awk '/^\t/ { print $1 }')" /usr/lib/libSystem.B.dylib @rpath/libgptq.0.dylib; }
macho_least() { llvm-objdump --macho --private-headers "$folder/$1" | grep -A 5 LC_BUILD_VERSION | grep -F 'minos 13.0'; }
macho_rpath() { llvm-objdump --macho --rpaths "$folder/bin/gptq-run" | grep -Fx '@loader_path/../lib'; }
macho_cpu() { llvm-objdump --macho --private-header "$folder/$1" | grep -E "${cpu/arm64/ARM64}|${cpu/x86_64/X86_64}"; }
macho_signed() { llvm-objdump --macho --private-headers "$folder/$1" | grep LC_CODE_SIGNATURE; }

pe_exports() {
  # shellcheck disable=SC2016
  local names='/\[Ordinal\/Name Pointer\] Table/ { on = 1; next } on && NF == 0 { exit } on { print $NF }'
  diff <(interface) <(x86_64-w64-mingw32-objdump -p "$folder/$library" | awk "$names" | sort)
}
pe_needs() {
  only_needs "$(x86_64-w64-mingw32-objdump -p "$folder/$1" | awk '/DLL Name:/ { print tolower($3) }')" kernel32.dll msvcrt.dll bcrypt.dll \
    shell32.dll api-ms-win-core-synch-l1-2-0.dll gptq-0.dll
}
pe_links() {
  x86_64-w64-mingw32-gcc-posix -DGPTQ_SHARED "-I$folder/include" "$root/examples/hello.c" "$1" -o "$work/hello.exe"
  x86_64-w64-mingw32-objdump -p "$work/hello.exe" | grep 'DLL Name: gptq-0.dll'
}
pe_links_def() { x86_64-w64-mingw32-dlltool -d "$folder/lib/gptq-0.def" -l "$work/gptq.lib" && pe_links "$work/gptq.lib"; }

case $system in
  linux)
    check 'the library exports the interface and nothing else' elf_exports
    check 'its soname is libgptq.so.0' elf_name
    for file in "$library" "${tools[@]}"; do
      check "$file needs libc alone" elf_needs "$file"
      check "$file asks for glibc 2.17 at most" elf_glibc "$file"
      check "$file has a stack without code" elf_stack "$file"
    done ;;
  macos)
    if command -v llvm-objdump >/dev/null; then
      check 'the library exports the interface and nothing else, by its symbols' macho_exports
      check 'and by what the loader looks at' macho_trie
      check 'its name is @rpath/libgptq.0.dylib' macho_name
      check 'gptq-run finds it in ../lib' macho_rpath
      for file in "$library" "${tools[@]}"; do
        check "$file is for $cpu" macho_cpu "$file"
        check "$file needs libSystem alone" macho_needs "$file"
        check "$file runs from macOS 13 on" macho_least "$file"
        [[ $cpu != arm64 ]] || check "$file is signed ad hoc" macho_signed "$file"
      done
    else
      skip 'what the files say' 'there is no llvm-objdump'
    fi ;;
  windows)
    if command -v x86_64-w64-mingw32-objdump >/dev/null; then
      check 'the library exports the interface and nothing else' pe_exports
      for file in "$library" "${tools[@]}"; do check "$file needs Windows alone" pe_needs "$file"; done
      check 'hello.c links with the import library' pe_links "$folder/lib/libgptq.dll.a"
      check 'and with one of the .def file' pe_links_def
    else
      skip 'what the files say' 'there is no MinGW-w64'
    fi ;;
esac

# How a program of the archive is run here.
runner=() why='' at=$work
case $target in
  linux-"$(uname -m)")
    if [[ -n $other_root ]]; then
      runner=(chroot "$other_root") at=${work#"$other_root"}
    else
      runner=(env)
    fi ;;
  linux-aarch64)
    if command -v qemu-aarch64 >/dev/null && [[ -d /usr/aarch64-linux-gnu ]]; then
      runner=(qemu-aarch64 -L /usr/aarch64-linux-gnu)
    else
      why='there is no qemu-aarch64 with libc6-arm64-cross'
    fi ;;
  windows-*)
    if command -v wine >/dev/null; then
      runner=(wine)
      export WINEPREFIX=$work/wine WINEDEBUG=-all WINEDLLOVERRIDES='mscoree,mshtml=' WINEARCH=win64
      wine wineboot --init >/dev/null 2>&1
    else
      why='there is no wine'
    fi ;;
  *) why="nothing here runs what is for $target" ;;
esac
tool() { "${runner[@]}" "$at/libgptq-$name/bin/gptq-$1$exe" "${@:2}"; }

cpu_is() { [[ $(<"$work/flags") == *" $1 "* ]]; }
# The best level that the processor has, by what the system says of it.
best_level() {
  case $target in
    linux-aarch64) echo neon_i8mm ;;  # QEMU's processor has all
    *)
      sed -n 's/^flags.*: /\ /p' /proc/cpuinfo | head -n 1 | sed 's/$/ /' >"$work/flags"
      if cpu_is avx512_vnni && cpu_is avx512f && cpu_is avx512bw && cpu_is avx512vl && cpu_is avx512dq; then
        echo avx512vnni
      elif cpu_is avx2 && cpu_is fma && cpu_is f16c; then
        echo avx2
      else
        echo ref
      fi ;;
  esac
}
# takes_level: gptq-bench says what gptq_runtime_kernels does.
takes_level() {
  tool bench "$at/model.gptq" -p 8 -n 4 -r 1 -t 2 >"$work/speed" 2>"$work/kernels"
  cat "$work/kernels" "$work/speed"
  grep -F "matmul_int8=$1" "$work/kernels" && grep -E 'tg *4' "$work/speed"
}
greedy() {
  python3 "$root/tests/cross/greedy.py" "$root/tests/golden/checkpoints/random-mistral-window-w4-g64" "${runner[@]}" \
    "$at/libgptq-$name/bin/gptq-run$exe" "$at/model.gptq"
}
perplexity() {
  printf 'ab abc d %.0s' {1..60} >"$work/text"
  cp "$root/tests/golden/tiny-1.0.gptq" "$work/tiny.gptq"
  tool eval perplexity "$at/tiny.gptq" "$at/text" --exact --ctx 60 -t 1
}
says_hello() {
  local status=0
  LD_LIBRARY_PATH=$folder/lib "$work/hello" 2>/dev/null || status=$?
  [[ $status == 2 ]]
}
hello() {
  export PKG_CONFIG_PATH=$folder/lib/pkgconfig
  local flags
  read -ra flags <<<"$(pkg-config --cflags --libs gptq)"
  cc -std=c99 "$root/examples/hello.c" -o "$work/hello" "${flags[@]}" && says_hello
}
hello_by_cmake() {
  cat >"$work/CMakeLists.txt" <<END_OF_CMAKE
cmake_minimum_required(VERSION 3.20)
project(hello C CXX)
find_package(gptq $version CONFIG REQUIRED)
add_executable(hello $root/examples/hello.c)
target_link_libraries(hello PRIVATE gptq::gptq)
END_OF_CMAKE
  cmake -S "$work" -B "$work/cmake" "-DCMAKE_PREFIX_PATH=$folder" "-DCMAKE_RUNTIME_OUTPUT_DIRECTORY=$work" &&
    cmake --build "$work/cmake" && says_hello
}

if [[ ${#runner[@]} -gt 0 ]]; then
  cp -r "$root/tests/golden/checkpoints/random-mistral-window-w4-g64" "$work/checkpoint"
  check 'gptq-convert makes a model' tool convert "$at/checkpoint" "$at/model.gptq"
  check "the kernels are $(best_level)'s" takes_level "$(best_level)"
  if [[ $target == linux-aarch64 && ${runner[0]} == qemu-* ]]; then
    export QEMU_CPU=cortex-a72
    check "and neon's on a processor without more" takes_level neon
    unset QEMU_CPU
  fi
  check "gptq-run gives the reference's tokens" greedy
  check 'gptq-eval measures' perplexity
else
  skip 'running' "$why"
fi
if [[ $target == linux-$(uname -m) && -z $other_root ]]; then
  check 'hello.c builds and runs with pkg-config' hello
  if command -v cmake >/dev/null; then
    check 'hello.c builds and runs with find_package' hello_by_cmake
  else
    skip 'find_package' 'there is no cmake'
  fi
fi
echo "$passed passed, $failed failed, $skipped skipped"
[[ $failed == 0 ]]
