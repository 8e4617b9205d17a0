#!/bin/sh
# Builds the bench's peer for filters: libseccomp of this machine's Debian, as runc has it.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
source="$root/integration/bench/peer/libseccomp.c"
program="$root/.cache/bench/libseccomp"
status=$(dpkg-query -W -f '${db:Status-Status}' libseccomp-dev 2>/dev/null || true)
if [ "$status" != installed ]; then
    install() { DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install libseccomp-dev </dev/null; }
    install || { apt-get -q update && install; }
fi
mkdir -p "$root/.cache/bench"
if [ ! -x "$program" ] || [ "$source" -nt "$program" ]; then
    cc -O2 -Wall -o "$program" "$source" -lseccomp
fi
