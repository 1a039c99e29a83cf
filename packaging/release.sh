#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes the archives of a release on one Linux machine. The same commit gives the same bytes.
set -euo pipefail

targets=(linux-x86_64 linux-aarch64 macos-arm64 macos-x86_64 windows-x86_64)
usage() {
  cat <<END_OF_USAGE
usage: packaging/release.sh [--out DIR] [--work DIR] [-j N] [TARGET]...

  --out DIR    where the archives and SHA256SUMS go; otherwise build/release-archives
  --work DIR   where they are built; otherwise build/release-work
  -j N         compile N files at a time; otherwise as many as there are cores
  TARGET       ${targets[*]}; otherwise all of them

Linux (for glibc 2.17 and later) and macOS (13 and later) are built with zig c++, Windows with MinGW-w64. zig and Meson
come from PyPI, in the versions that packaging/release-tools.txt states; the rest are Debian's packages, which it
installs. SOURCE_DATE_EPOCH is the time that is in the archives; otherwise it is that of the last commit.
packaging/check_release.sh checks an archive.
END_OF_USAGE
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=$root/build/release-archives work=$root/build/release-work jobs=$(nproc) chosen=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --out) out=${2:?--out needs a folder}; shift ;;
    --work) work=${2:?--work needs a folder}; shift ;;
    -j) jobs=${2:?-j needs a number}; shift ;;
    -h | --help) usage; exit 0 ;;
    *)
      [[ " ${targets[*]} " == *" $1 "* ]] || { usage >&2; exit 2; }
      chosen+=("$1") ;;
  esac
  shift
done
[[ ${#chosen[@]} -gt 0 ]] || chosen=("${targets[@]}")
mkdir -p "$out" "$work"
out=$(cd "$out" && pwd) work=$(cd "$work" && pwd)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct)}
export LC_ALL=C TZ=UTC
umask 022

packages=(ninja-build pkg-config flatbuffers-compiler libflatbuffers-dev libxxhash-dev libcli11-dev dpkg-dev python3 python3-venv)
[[ " ${chosen[*]} " != *' windows-'* ]] || packages+=(gcc-mingw-w64-x86-64-posix g++-mingw-w64-x86-64-posix)
"$root/examples/install_dependencies.sh" --packages "${packages[@]}"

tools=$work/tools
if ! cmp -s "$root/packaging/release-tools.txt" "$tools/made-of"; then
  python3 -m venv --clear "$tools"
  "$tools/bin/pip" install --quiet --requirement "$root/packaging/release-tools.txt"
  cp "$root/packaging/release-tools.txt" "$tools/made-of"
fi
zig_folder=$("$tools/bin/python" -c 'import os, ziglang; print(os.path.dirname(ziglang.__file__))')
export ZIG_GLOBAL_CACHE_DIR=${ZIG_GLOBAL_CACHE_DIR:-$work/zig-cache}
export ZIG_LOCAL_CACHE_DIR=$ZIG_GLOBAL_CACHE_DIR
version=$(sed -n "s/^ *version: '\([0-9.]*\)'.*/\1/p" "$root/meson.build" | head -n 1)

# What a target is: its compiler and how it links.
describe_target() {
  local zig="'$zig_folder/zig'"
  system=${1%%-*} cpu=${1##*-} link_args="'-s'" tools_rpath='' c_args="'-g0'"  # zig writes what a debugger wants unless told
  [[ $cpu != arm64 ]] || cpu=aarch64
  case $system in
    linux)
      needs='Linux with glibc 2.17 or later; nothing else, libc++ is inside' triple=$cpu-linux-gnu.2.17
      tools_rpath="\$ORIGIN/../lib" ;;
    macos)
      needs='macOS 13 or later; nothing else, libc++ is inside. Built and looked at on Linux, never run: nobody of us has a Mac' triple=$cpu-macos.13.0
      tools_rpath=@loader_path/../lib ;;
    windows)
      needs='Windows 10 or later; nothing else, libstdc++ is inside. Run under Wine alone so far' triple=x86_64-w64-mingw32 ;;
  esac
  if [[ $system == windows ]]; then
    # tests/cross/windows.ini says why.
    c_args="'-Wa,-muse-unaligned-vector-move'"
    link_args="'-static', '-s', '-Wl,--no-insert-timestamp'"
    cc="'$triple-gcc-posix'" cxx="'$triple-g++-posix'" ar="'$triple-gcc-ar-posix'" strip="'$triple-strip'"
    built_with="$("$triple-g++-posix" --version | head -n 1)"
  else
    cc="$zig, 'cc', '-target', '$triple'" cxx="$zig, 'c++', '-target', '$triple'" ar="$zig, 'ar'" strip="'true'"
    built_with="zig $("$zig_folder/zig" version)"
  fi
}

# A Meson list as words of a shell.
words() { sed "s/'//g; s/,//g" <<<"$1"; }

# No file is named in what is built but relatively to the sources.
prefix_maps() {
  printf -- "'-ffile-prefix-map=%s/=', " "$(realpath -m --relative-to="$1/build" "$root")" "$1/libraries" "$1/build"
}

cross_file() {
  local name=$1 folder=$2 meson_system=$system
  [[ $system != macos ]] || meson_system=darwin
  cat <<END_OF_CROSS_FILE
[binaries]
c = [$cc]
cpp = [$cxx]
ar = [$ar]
strip = [$strip]
pkg-config = 'pkg-config'

[built-in options]
c_args = [$(prefix_maps "$folder")$c_args]
cpp_args = [$(prefix_maps "$folder")$c_args]
c_link_args = [$link_args]
cpp_link_args = [$link_args]

[host_machine]
system = '$meson_system'
cpu_family = '$cpu'
cpu = '$cpu'
endian = 'little'
END_OF_CROSS_FILE
}

licences() {
  local to=$1 libraries=$2 part
  cp "$libraries"/licences/*.txt "$to"
  if [[ $system == windows ]]; then
    cp /usr/share/doc/mingw-w64-x86-64-dev/copyright "$to/mingw-w64.txt"
    cp /usr/share/doc/gcc-mingw-w64-base/copyright "$to/gcc-runtime.txt"
  else
    for part in libcxx libcxxabi libunwind; do
      cp "$zig_folder/lib/$part/LICENSE.TXT" "$to/$part.txt"
    done
    cp "$zig_folder/LICENSE" "$to/zig.txt"
  fi
}

readme() {
  cat <<END_OF_README
libgptq $version for $1. It needs $needs.
Built with $built_with. Interface: include/gptq/gptq.h. Tools: bin, each with --help; gptq-convert loads no models of
the hub in this build. Licences: LICENSE, and in licences those of what is inside the library and the tools.
END_OF_README
}

# The archive of a folder, by names, times and rights that do not depend on who makes it.
pack() {
  local folder=$1 name
  name=$(basename "$folder")
  find "$folder" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
  if [[ $system == windows ]]; then
    (cd "$(dirname "$folder")" && python3 "$root/packaging/zip_folder.py" "$name" "$out/$name.zip")
    archive=$name.zip
  else
    tar -C "$(dirname "$folder")" --format=ustar --sort=name --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
      --mtime="@$SOURCE_DATE_EPOCH" -cf - "$name" | gzip -n -9 >"$out/$name.tar.gz"
    archive=$name.tar.gz
  fi
}

make_archive() {
  local target=$1 folder=$work/$1 prefix
  local build=$folder/build stage=$folder/stage name=libgptq-$version-$1
  describe_target "$target"
  mkdir -p "$folder"
  "$root/tests/cross/libraries.sh" "$folder/libraries" \
    "$(words "$cc") $(words "$c_args") -fvisibility=hidden -DZSTDLIB_VISIBLE= -DZSTDERRORLIB_VISIBLE= -DZDICTLIB_VISIBLE=" \
    "$(words "$cxx") $(words "$c_args") -fvisibility=hidden" "$(words "$ar")"
  cross_file "$target" "$folder" >"$folder/cross.ini"
  [[ -f $build/build.ninja ]] || "$tools/bin/meson" setup "$build" "$root" --cross-file "$folder/cross.ini" --cross-file "$folder/libraries/meson.ini" \
    --prefix /libgptq --libdir lib --wrap-mode nofallback -Db_pch=true -Dpkgconfig.relocatable=true -Dtools_rpath="$tools_rpath" \
    -Dconverter=enabled -Dhub=disabled -Dtests=disabled -Dcuda=disabled
  ninja -C "$build" -j "$jobs"
  rm -rf "$stage"
  "$tools/bin/meson" install -C "$build" --no-rebuild --quiet --destdir "$stage"
  prefix=$stage/$name
  mv "$stage/libgptq" "$prefix"
  # The static library would need this compiler's C++ library: who wants it builds it with their own.
  rm -f "$prefix/lib/libgptq.a"
  sed -i '/^Requires.private:/d; /^Libs.private:/d' "$prefix/lib/pkgconfig/gptq.pc"
  mkdir "$prefix/licences"
  licences "$prefix/licences" "$folder/libraries"
  cp "$root/LICENSE" "$prefix"
  readme "$target" >"$prefix/README.txt"
  pack "$prefix"
  echo "$target: $out/$archive, $(stat -c %s "$out/$archive") bytes. It needs $needs."
}

for target in "${chosen[@]}"; do
  make_archive "$target"
done
(cd "$out" && find . -maxdepth 1 -name "libgptq-*" -printf '%P\n' | sort | xargs sha256sum >SHA256SUMS)
cat "$out/SHA256SUMS"
