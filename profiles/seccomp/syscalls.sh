#!/bin/sh
# Writes the table of system calls (name, x86_64 number, aarch64 number; "-" where the ABI has none) to stdout:
# the numbers of the installed uapi headers, then those that Linux gained up to 6.18, which older headers lack.
# Usage: ./syscalls.sh > syscalls.tsv
set -eu
numbers() {
    printf '#include <%s>\n' "$1" | cpp -dM $2 - | sed -n 's/^#define __NR_\([a-z0-9_]*\) .*/\1/p' | grep -v -e '^syscalls$' -e '^arch_specific' |
    { printf '#include <%s>\n' "$1"; while read -r name; do printf 'NR %s __NR_%s\n' "$name" "$name"; done; } |
    cpp -P $2 - | awk '$1 == "NR" && $3 ~ /^[0-9]+$/ {print $2, $3}'
}
new='cachestat 451
fchmodat2 452
map_shadow_stack 453
futex_wake 454
futex_wait 455
futex_requeue 456
statmount 457
listmount 458
lsm_get_self_attr 459
lsm_set_self_attr 460
lsm_list_modules 461
mseal 462
setxattrat 463
getxattrat 464
listxattrat 465
removexattrat 466
open_tree_attr 467
file_getattr 468
file_setattr 469'
arm='-D__ARCH_WANT_RENAMEAT -D__ARCH_WANT_NEW_STAT -D__ARCH_WANT_SET_GET_RLIMIT
 -D__ARCH_WANT_TIME32_SYSCALLS -D__ARCH_WANT_SYS_CLONE3 -D__ARCH_WANT_MEMFD_SECRET'
{
    { numbers asm/unistd_64.h ''; echo "$new"; echo 'uretprobe 335'; echo 'uprobe 336'; } | sed 's/^/x /'
    { numbers asm-generic/unistd.h "$(echo $arm)"; echo "$new"; } | sed 's/^/a /'
} | awk '
    { seen[$2] = 1; if ($1 == "x") x[$2] = $3; else a[$2] = $3 }
    END { for (n in seen) printf "%s\t%s\t%s\n", n, (n in x) ? x[n] : "-", (n in a) ? a[n] : "-" }' | LC_ALL=C sort
