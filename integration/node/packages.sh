#!/bin/sh
# Makes what the test node boots from, out of Debian packages only: a kernel, the EFI stub, a root file system. Run again,
# it is quick: what is there is kept. Nothing but the tools themselves is installed on this machine.
#
#   .cache/node/kernel/        vmlinuz, modules (with their index), VERSION
#   .cache/node/stub.efi       systemd's EFI stub: kernel, command line and initrd become one PE file
#   .cache/node/root.ext4      Debian stable, without a kernel; written to by nobody after this
#   .cache/node/selinux/       Debian's SELinux policy as CIL, and the compiler for it
#   .cache/node/PACKAGES       what was fetched, by version
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
cache="$root/.cache/node"
apt="$cache/apt"
suite=trixie

# Why each: qemu-system-x86 and ovmf (the machine and its firmware), swtpm (its TPM), sbsigntool, openssl and binutils (a signed EFI
# program), mtools and dosfstools (its boot disk), mmdebstrap, e2fsprogs and kmod (the root file system), cpio and xz-utils
# (the initrd), bzip2 (Debian's SELinux policy).
tools='qemu-system-x86 ovmf swtpm swtpm-tools sbsigntool openssl binutils mtools dosfstools mmdebstrap e2fsprogs kmod cpio xz-utils
bzip2'
missing=
for package in $tools; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
if [ -n "$missing" ]; then
    echo "node: installing$missing"
    # shellcheck disable=SC2086
    install() { DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install $missing </dev/null; }
    install || { apt-get -q update && install; }
fi

# Raised by whoever changes what this script makes.
recipe=5
if [ "$(cat "$cache/RECIPE" 2>/dev/null)" = "$recipe" ]; then
    exit 0
fi
rm -rf "$cache/kernel" "$cache/root" "$cache/root.ext4" "$cache/debs" "$cache/selinux"
mkdir -p "$cache/debs"

. "$root/integration/tools/private-apt.sh"
private_apt node "$apt" "$apt/archives" deb "$suite" </dev/null
source=$(cat "$apt/sources.list")

# The kernel: the newest 6.12 of that suite, as the metapackage names it.
image=$(private apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*-amd64\)$/\1/p' | head -1)
case $image in
linux-image-6.12.* | linux-image-6.1[3-9].* | linux-image-[7-9].*) ;;
*) echo "node: $suite has \"$image\", not a kernel of 6.12 or newer" >&2; exit 1 ;;
esac
(cd "$cache/debs" && private apt-get -q download "$image" systemd-boot-efi)
for deb in "$cache"/debs/*.deb; do
    dpkg-deb -x "$deb" "$cache/debs/tree"
done
version=${image#linux-image-}
mkdir -p "$cache/kernel"
cp "$cache/debs/tree/boot/vmlinuz-$version" "$cache/kernel/vmlinuz"
cp "$cache/debs/tree/usr/lib/systemd/boot/efi/linuxx64.efi.stub" "$cache/stub.efi"
echo "$version" >"$cache/kernel/VERSION"
modules=$(cd "$cache/debs/tree" && ls -d usr/lib/modules/"$version" lib/modules/"$version" 2>/dev/null | head -1)

# SELinux: the base policy of this machine's own release, whose tools run on it. Unpacked, not installed.
mkdir -p "$cache/debs/selinux" "$cache/selinux"
(cd "$cache/debs/selinux" && apt-get -q -o APT::Sandbox::User=root download \
    selinux-policy-default secilc policycoreutils libsepol2 libselinux1)
for deb in "$cache"/debs/selinux/*.deb; do
    dpkg-deb -x "$deb" "$cache/selinux/tree"
done
libraries="$cache/selinux/tree/usr/lib/x86_64-linux-gnu:$cache/selinux/tree/lib/x86_64-linux-gnu"
bzcat "$cache/selinux/tree/usr/share/selinux/default/base.pp.bz2" >"$cache/selinux/base.pp"
LD_LIBRARY_PATH=$libraries "$cache/selinux/tree/usr/libexec/selinux/hll/pp" "$cache/selinux/base.pp" "$cache/selinux/all.cil"
# Statements for the login of people, which name roles of other modules.
grep -v '^(selinuxuser' "$cache/selinux/all.cil" >"$cache/selinux/base.cil"
rm "$cache/selinux/base.pp" "$cache/selinux/all.cil"

# The root: what the node and its test need, nothing of a desktop, no manuals.
# kmod (the kernel asks for modules), iproute2, mount and containernetworking-plugins (pods), docker-registry (images),
# skopeo (signatures made in a case), kexec-tools (the boot that leaves the measured kernel), systemd (a boot by the units that are shipped),
# erofs-utils (containerd's erofs snapshotter), e2fsprogs, fsverity and cryptsetup-bin (integrity levels, as other tools make and see them),
# procps, busybox-static (a shell to look around).
mmdebstrap --quiet --variant=essential \
    --include=kmod,iproute2,mount,procps,containernetworking-plugins,docker-registry,busybox-static,ca-certificates,skopeo,kexec-tools,systemd,systemd-sysv,erofs-utils,e2fsprogs,fsverity,cryptsetup-bin \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    "$suite" "$cache/root" "$source"
mkdir -p "$cache/root/usr/lib/modules"
mv "$cache/debs/tree/$modules" "$cache/root/usr/lib/modules/$version"
rm -f "$cache/root/usr/lib/modules/$version/build" "$cache/root/usr/lib/modules/$version/source"
depmod -b "$cache/root/usr" -m /lib/modules "$version" 2>/dev/null || depmod -b "$cache/root" "$version"
test -s "$cache/root/usr/lib/modules/$version/modules.dep"
cp -a "$cache/root/usr/lib/modules/$version" "$cache/kernel/modules"
mke2fs -q -t ext4 -m 0 -E lazy_itable_init=0 -d "$cache/root" "$cache/root.ext4.new" 3G
mv "$cache/root.ext4.new" "$cache/root.ext4"
{
    (cd "$cache/debs" && ls -- *.deb selinux/*.deb)
    sed -n 's/^Package: //p;s/^Version: /  /p' "$cache/root/var/lib/dpkg/status" | paste - - | sort
} >"$cache/PACKAGES"
rm -rf "$cache/root" "$cache/debs"
echo "$recipe" >"$cache/RECIPE"
echo "node: $(wc -l <"$cache/PACKAGES") packages, kernel $version"
