#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds what a build for another system needs of other projects and Debian has no package of: zstd, PCRE2, simdjson and
# GoogleTest, static, from Debian's source packages; xxHash, FlatBuffers and CLI11 are headers of the machine itself.
#   libraries.sh FOLDER [CC CXX AR]    # FOLDER/meson.ini is a cross file that names them; without CC: for Windows; with CC:
#                                      # without GoogleTest
# What is there already stays.
set -euo pipefail

[[ ($# -eq 1 || $# -eq 4) && $1 != -* ]] || { sed -n '3,7s/^# \?//p' "$0"; exit 2; }
mkdir -p "$1"
target=$(cd "$1" && pwd)
cc=${2:-x86_64-w64-mingw32-gcc-posix -Wa,-muse-unaligned-vector-move}
cxx=${3:-x86_64-w64-mingw32-g++-posix -Wa,-muse-unaligned-vector-move} ar=${4:-x86_64-w64-mingw32-ar}
[[ ! -f $target/meson.ini ]] || exit 0
work=$target/work
rm -rf "$work"
mkdir -p "$work"/{lists/partial,sources} "$target"/{include,lib/pkgconfig,licences}

# Source packages of the places where this machine's packages come from, but for updates, whose sources may be gone
# before the packages.
# shellcheck disable=SC2016
apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' |
  awk '$4 == "Debian" && $3 == "main" && $2 !~ /-/ { print "deb-src", $1, $2, $3 }' | sort -u >"$work/sources.list"
options=(-qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/lists"
  -o APT::Get::List-Cleanup=0 -o APT::Sandbox::User=root)
apt-get "${options[@]}" update
for package in libzstd pcre2 simdjson; do
  (cd "$work" && apt-get "${options[@]}" source --download-only "$package")
  # shellcheck disable=SC2010
  tar -C "$work/sources" -xf "$(ls -t "$work/${package}"_*.orig.tar.* | grep -v '\.asc$' | head -n 1)"
done

# compile NAME 'FLAGS' FILE...: lib/libNAME.a
compile() {
  local name=$1 flags=$2
  shift 2
  mkdir -p "$work/$name"
  # shellcheck disable=SC2016
  printf '%s\n' "$@" | cc=$cc cxx=$cxx flags=$flags objects=$work/$name xargs -P "$(nproc)" -I{} sh -c '
    case $1 in *.c) compiler=$cc ;; *) compiler="$cxx -std=c++17" ;; esac
    $compiler -O2 -fPIC $flags -c "$1" -o "$objects/$(echo "$1" | tr / _).o"' sh {}
  rm -f "$target/lib/lib$name.a"
  $ar crs "$target/lib/lib$name.a" "$work/$name"/*.o
}

# describe NAME VERSION LIBRARIES [FLAGS]: lib/pkgconfig/NAME.pc
describe() {
  cat >"$target/lib/pkgconfig/$1.pc" <<END
Name: $1
Description: $1
Version: $2
Libs: -L$target/lib $3
Cflags: -I$target/include ${4:-}
END
}
# licence NAME FILE: licences/NAME.txt
licence() { cp "$2" "$target/licences/$1.txt"; }
version_of() { dpkg-query -W -f='${Version}' "$1" | sed 's/^[0-9]*://; s/[+~-].*//'; }

cd "$work"/sources/zstd-*
compile zstd '-DZSTD_DISABLE_ASM=1 -DZSTD_LEGACY_SUPPORT=0 -Ilib -Ilib/common' \
  lib/{common,compress,decompress,dictBuilder}/*.c
cp lib/zstd.h lib/zstd_errors.h lib/zdict.h "$target/include"
describe libzstd 1.5 -lzstd
licence zstd LICENSE

cd "$work"/sources/pcre2-*/src
cp config.h.generic config.h
cp pcre2.h.generic pcre2.h
cp pcre2_chartables.c.dist pcre2_chartables.c
pcre2=()
for part in auto_possess chartables chkdint compile config context convert dfa_match error extuni find_bracket \
  jit_compile maketables match match_data newline ord2utf pattern_info script_run serialize string_utils study \
  substitute substring tables ucd valid_utf xclass; do
  [[ ! -f pcre2_$part.c ]] || pcre2+=("pcre2_$part.c")
done
compile pcre2-8 '-DHAVE_CONFIG_H -DPCRE2_CODE_UNIT_WIDTH=8 -DPCRE2_STATIC -DSUPPORT_UNICODE -I.' "${pcre2[@]}"
cp pcre2.h "$target/include"
licence pcre2 ../LICENCE
describe libpcre2-8 10.42 -lpcre2-8 -DPCRE2_STATIC

cd "$work"/sources/simdjson-*
compile simdjson '-Iinclude -Isrc' src/simdjson.cpp
cp -r include/. "$target/include"
describe simdjson 3.0 -lsimdjson
licence simdjson LICENSE

if [[ $# -eq 1 ]]; then
  cd /usr/src/googletest/googletest
  compile gtest '-Iinclude -I. -DGTEST_HAS_PTHREAD=0' src/gtest-all.cc
  compile gtest_main '-Iinclude -I. -DGTEST_HAS_PTHREAD=0' src/gtest_main.cc
  cp -r include/. "$target/include"
  describe gtest 1.12 -lgtest -DGTEST_HAS_PTHREAD=0
  describe gtest_main 1.12 '-lgtest_main -lgtest' -DGTEST_HAS_PTHREAD=0
fi

cp /usr/include/xxh*.h "$target/include"
cp -r /usr/include/flatbuffers /usr/include/CLI "$target/include"
describe libxxhash "$(version_of libxxhash-dev)" '' -DXXH_INLINE_ALL
describe flatbuffers "$(version_of libflatbuffers-dev)" ''
describe CLI11 "$(version_of libcli11-dev)" ''
for package in libxxhash-dev libflatbuffers-dev libcli11-dev; do
  licence "$(sed 's/^lib//; s/-dev$//' <<<"$package")" "/usr/share/doc/$package/copyright"
done
rm -rf "$work"
printf "[properties]\npkg_config_libdir = ['%s/lib/pkgconfig']\n" "$target" >"$target/meson.ini.part"
mv "$target/meson.ini.part" "$target/meson.ini"
