#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# build.sh FOLDER: Debian packages of the committed tree, in FOLDER; lintian looks at them where it is there.
set -euo pipefail
[[ $# -eq 1 && $1 != -* ]] || { sed -n '3s/^# //p' "$0" >&2; exit 2; }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
"$root/examples/install_dependencies.sh" --packages debhelper dpkg-dev help2man meson ninja-build pkg-config flatbuffers-compiler libflatbuffers-dev \
  libzstd-dev libxxhash-dev libsimdjson-dev libpcre2-dev libcli11-dev libcurl4-openssl-dev libssl-dev
version=$(sed -n '1s/.*(\(.*\)).*/\1/p' "$root/packaging/debian/changelog")
source=$folder/gptq-$version
rm -rf "$source"
mkdir "$source"
git -C "$root" archive HEAD | tar -x -C "$source"
cp -r "$root/packaging/debian" "$source/debian"
(cd "$source" && dpkg-buildpackage -us -uc -b)
rm -rf "$source"
if command -v lintian >/dev/null; then
  lintian --fail-on error,warning "$folder"/*.changes
fi
ls -l "$folder"/*.deb
