#!/bin/sh
# Compiles the profile into the form that the kernel takes, and notes what it was made from.
#
#   compile.sh          writes boltseal-default.bin and boltseal-default.sum
#   compile.sh check    compiles again and fails when the result is not the file that is here
#
# Needs apparmor_parser 3.0 (Debian's package apparmor, which may be unpacked anywhere: set APPARMOR to that folder; by
# default the machine's own). The features are those of abi/3.0: Linux 4.19 and all that came after take it. The parser
# loads nothing (-Q), and needs neither root nor AppArmor in this kernel.
set -eu
cd "$(dirname "$0")"
root=${APPARMOR:-}
base=$root/etc/apparmor.d
parser=$root/sbin/apparmor_parser
[ -x "$parser" ] || parser=$root/usr/sbin/apparmor_parser
if ! [ -x "$parser" ] || ! [ -f "$base/abi/3.0" ]; then
    echo "compile.sh: no apparmor_parser below ${root:-/}. Fix: apt-get install apparmor, or set APPARMOR" >&2
    exit 1
fi
[ -z "$root" ] || export LD_LIBRARY_PATH="$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu"

made=$(mktemp)
trap 'rm -f "$made"' EXIT
"$parser" -Q -K -T -M "$base/abi/3.0" -b "$base" -o "$made" boltseal-default
if [ "${1:-}" = check ]; then
    cmp "$made" boltseal-default.bin || { echo 'compile.sh: boltseal-default.bin is not of this source' >&2; exit 1; }
    sha256sum -c --quiet boltseal-default.sum
    exit 0
fi
cat "$made" >boltseal-default.bin
sha256sum boltseal-default boltseal-default.bin >boltseal-default.sum
