#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing of the Debian packages that building needs; with an argument also those for what it names:
#   examples/install_dependencies.sh [quickstart | tests | clang | tavern]...
#   examples/install_dependencies.sh --packages NAME...    # these alone
set -euo pipefail

packages=(g++ meson ninja-build pkg-config flatbuffers-compiler libflatbuffers-dev libzstd-dev libxxhash-dev
  libsimdjson-dev libcli11-dev libpcre2-dev libcurl4-openssl-dev libssl-dev ccache)
if [[ ${1:-} == --packages ]]; then
  packages=("${@:2}")
  set --
fi
for use in "$@"; do
  case $use in
    quickstart) packages+=(ca-certificates python3-pip) ;;
    tests) packages+=(gcc binutils cmake python3 openssl libgtest-dev libbenchmark-dev) ;;
    clang) packages+=(clang) ;;
    tavern) packages+=(ca-certificates python3-pip libsdl2-dev libsdl2-ttf-dev libsdl2-image-dev fonts-dejavu-core xvfb xauth) ;;
    *) echo "install_dependencies.sh: unknown argument '$use'; known are quickstart, tests, clang, tavern" >&2; exit 2 ;;
  esac
done

if ! command -v apt-get >/dev/null; then
  echo "No apt-get here: what these Debian packages hold is taken to be installed: ${packages[*]}" >&2
  exit 0
fi
missing=()
for package in "${packages[@]}"; do
  [[ $(dpkg-query -W -f='${Status}' "$package" 2>/dev/null) == 'install ok installed' ]] || missing+=("$package")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

as_root=()
if [[ $(id -u) != 0 ]]; then
  command -v sudo >/dev/null || { echo "Please install as root: apt-get install ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
echo "Installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
