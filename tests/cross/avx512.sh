#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the AVX-512 VNNI kernels where no processor has them: a small Linux in the emulator Bochs runs their tests, then whole models.
set -euo pipefail

usage() {
  cat <<'END'
usage: tests/cross/avx512.sh BUILD [FILTER]

  BUILD    a build with tests and converter, as build/release
  FILTER   of the kernel tests (--gtest_filter), instead of all of AVX-512's; models are not run then

Once, as root:  apt-get install --no-install-recommends bochs isolinux syslinux-common xorriso busybox-static
Without these it says what is missing and exits with 77. Debian's kernel is fetched, not installed.
About 20 minutes of a free core; BOCHS names another Bochs than Debian's, which takes 5 if it is built without its debugger.
BF16 products are run where Bochs has a processor with them (sapphire_rapids, 3.0), which Debian's 2.7 has not.
END
}

[[ ( $# -eq 1 || $# -eq 2 ) && $1 != -h && $1 != --help ]] || { usage; exit 2; }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$(realpath "$1") bochs=${BOCHS:-bochs-bin}
display='rfb, options="timeout=0"'
[[ ! -v BOCHS ]] || display=nogui
for tool in "$bochs" xorriso busybox; do
  command -v "$tool" >/dev/null || { echo "skipped: $tool is missing" >&2; exit 77; }
done
filter=${2:-registry.*:*/avx512vnni} models='' processor=corei7_icelake_u
[[ $# -eq 2 ]] || models=" && api_tests --gtest_filter='Checkpoints/*:Ways/*'"
tests=("$build/tests/kernels/kernel_test" "$build/tests/api/api_tests")
ninja -C "$build" "${tests[@]#"$build/"}"
if "$bochs" --help cpu 2>&1 | grep -q sapphire_rapids; then
  processor=sapphire_rapids
  [[ $# -eq 2 ]] || filter+=':*/avx512bf16'
fi

kernel=$build/kernel
if [[ ! -d $kernel ]]; then
  package=$(apt-cache depends linux-image-cloud-amd64 | awk '$1 == "Depends:" { print $2; exit }')
  mkdir -p "$kernel.part"
  (cd "$kernel.part" && apt-get download "$package" && dpkg -x ./*.deb .)
  mv "$kernel.part" "$kernel"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
guest=$work/guest
mkdir -p "$guest"/{bin,proc,dev,tmp} "$work/disk/isolinux"
cp "$(command -v busybox)" "$guest/bin"
cp "${tests[@]}" "$guest/bin"
ldd "${tests[@]}" | awk '{ for (i = 1; i <= NF; ++i) if ($i ~ "^/.*[^:]$") print $i }' | sort -u | xargs cp -L --parents -t "$guest"
cp -r "$root/tests/golden" "$guest"
cat >"$guest/init" <<END
#!/bin/busybox sh
export GPTQ_GOLDEN=/golden
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t devtmpfs none /dev
kernel_test --gtest_filter='$filter'$models && echo 'in the guest: passed'
/bin/busybox sleep 1
/bin/busybox poweroff -f
END
chmod +x "$guest/init"

(cd "$guest" && find . | busybox cpio -o -H newc | gzip -1) >"$work/disk/initrd" 2>/dev/null
cp "$kernel"/boot/vmlinuz-* "$work/disk/vmlinuz"
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$work/disk/isolinux"
# What Bochs tells Linux of its xsave, protection keys and string moves does not fit together.
cat >"$work/disk/isolinux/isolinux.cfg" <<'END'
default linux
label linux
  kernel /vmlinuz
  append initrd=/initrd console=ttyS0 quiet panic=-1 reboot=t mitigations=off nokaslr clearcpuid=xsavec,xsaves,pku,ospke,fsrm
END
xorriso -as mkisofs -quiet -o "$work/disk.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table \
  "$work/disk" 2>/dev/null
cat >"$work/bochsrc" <<END
display_library: $display
config_interface: textconfig
cpu: model=$processor, ips=100000000, reset_on_triple_fault=0, ignore_bad_msrs=1
memory: guest=512, host=512
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/vgabios/vgabios.bin
ata0-master: type=cdrom, path=$work/disk.iso, status=inserted
boot: cdrom
log: $work/log
panic: action=fatal
error: action=ignore
com1: enabled=1, mode=file, dev=$work/serial
END

: >"$work/serial"
tail --pid=$$ -f "$work/serial" &
viewer=$!
# Debian's Bochs is one with a debugger, which waits for the word to go.
timeout 7200 "$bochs" -q -f "$work/bochsrc" <<<c >"$work/console" 2>&1 || true
kill "$viewer"
if grep -q 'in the guest: passed' "$work/serial" && ! grep -q -e SKIPPED -e 'Running 0 tests' "$work/serial"; then exit 0; fi
echo "failed; end of Bochs' log:" >&2
tail -n 5 "$work/log" >&2
exit 1
